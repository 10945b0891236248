"""The vocoder on mels of the flow."""

from __future__ import annotations

import numpy as np
import torch
from support.training_examples import falls

from training.corpus import Corpus
from training.flow import Flow
from training.token_ids import (
    TokenCorpus,
)
from training.vocoder_tuning import VocoderTuningTask, generate_mels


def test_the_vocoder_is_tuned_on_the_flows_mels_beside_the_audio(folder, token_folder, tmp_path):
    torch.manual_seed(0)
    corpus = TokenCorpus(folder, token_folder, "train")
    generated = tmp_path / "generated"
    generate_mels(Flow().eval(), corpus, generated, count=3)
    task = VocoderTuningTask(corpus.corpus, Corpus(folder, "heldout"), 10, generated)
    rng = np.random.default_rng(0)
    examples = [task._example(rng) for _ in range(40)]
    assert all(len(mel) == 2 * utterance.tokens for utterance, mel in examples)
    made = [utterance.text for utterance, mel in examples if not np.array_equal(mel, utterance.mel)]
    assert 10 < len(made) < 30 and len(set(made)) <= 3
    assert falls(task, steps=4, rate=1e-4)


def test_mels_that_were_made_are_kept(folder, token_folder, tmp_path):
    corpus = TokenCorpus(folder, token_folder, "train")
    (tmp_path / "generated").mkdir()
    generate_mels(Flow().eval(), corpus, tmp_path / "generated", count=1)
    assert not list((tmp_path / "generated").iterdir())
