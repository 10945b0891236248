"""The flow on ids that the speech LM drew."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.training_examples import falls

from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from training.flow_tuning import DRAWS, FlowTuningTask, draw_ids
from training.lm_rows import RowMaker
from training.mel_recogniser import MelRecogniser
from training.pairs import Pairs
from training.sizes import SPEECH_IDS, speech_lm_config
from training.speech_lm import predict_tokens
from training.spelling import Spelling, learn_merges, write_tokenizer
from training.token_ids import (
    IdTable,
    TokenCorpus,
)


@pytest.fixture(scope="module")
def spelling(tmp_path_factory):
    text = tmp_path_factory.mktemp("text")
    write_tokenizer(text, learn_merges(["A tone.", "Another tone."], count=20))
    return Spelling(text)


@pytest.fixture(scope="module")
def lm(spelling):
    torch.manual_seed(0)
    network = SpeechLM(speech_lm_config(spelling.rows)).eval()
    with torch.no_grad():
        network.llm_decoder.weight.normal_(0, 0.2)
    return network


def test_ids_drawn_for_a_corpus_lie_beside_its_own_and_are_kept(
    folder, token_folder, spelling, lm, tmp_path
):
    corpus = TokenCorpus(folder, token_folder, "train")
    draw_ids(lm, RowMaker(spelling), corpus, tmp_path / "drawn.npy")
    drawn = np.load(tmp_path / "drawn.npy")
    assert drawn.shape == (sum(corpus.tokens), DRAWS)
    assert drawn.min() >= 0 and drawn.max() < SPEECH_IDS
    # The likeliest ids of one text alone hold all that was drawn for it.
    row = RowMaker(spelling).joined(Pairs.of_corpus(corpus), [1])
    likely = predict_tokens(lm, [row])[0][:, :SPEECH_IDS].topk(30).indices.numpy()[:-1]
    start = corpus.tokens[0]
    for token, choices in enumerate(likely):
        assert set(drawn[start + token]) <= set(choices)
    (tmp_path / "drawn.npy").write_bytes(b"kept")
    draw_ids(lm, RowMaker(spelling), corpus, tmp_path / "drawn.npy")
    assert (tmp_path / "drawn.npy").read_bytes() == b"kept"


def test_the_flow_is_tuned_on_true_mixed_and_drawn_ids(folder, token_folder):
    corpus, heldout = (TokenCorpus(folder, token_folder, s) for s in ("train", "heldout"))
    table = IdTable.load(token_folder / "table.npz")
    draws = np.full((sum(corpus.tokens), DRAWS), 7, np.int16)
    task = FlowTuningTask(corpus, heldout, table, draws, MelRecogniser())
    rng = np.random.default_rng(0)
    shares = [np.mean(task._ids(2, rng) == 7) for _ in range(200)]
    assert 60 <= sum(share < 0.05 for share in shares) <= 100  # the tokenizer's own
    assert 40 <= sum(share == 1 for share in shares) <= 80
    assert {"velocity", "phoneme"} <= set(task.losses(rng, 0))
    assert falls(task, steps=6)
    assert not any(p.requires_grad for p in task._recogniser.parameters())
