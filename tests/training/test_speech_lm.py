"""The speech LM learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.training_examples import falls

from training.pairs import Pairs
from training.sizes import SPEECH_IDS
from training.speech_lm import SpeechLMTask
from training.speech_tokenizer import (
    CODES,
)
from training.spelling import Spelling, learn_merges, write_tokenizer
from training.token_ids import (
    IdTable,
)


def test_the_speech_lm_learns_one_batch(tmp_path):
    write_tokenizer(tmp_path, learn_merges(["A tone.", "Another tone."], count=20))
    table = IdTable.from_counts(np.zeros(CODES, np.int64), np.ones(CODES, np.int64))
    rng = np.random.default_rng(0)
    ids = [rng.integers(100, 2000, n).astype(np.int16) for n in (20, 24, 30)]
    times = [np.array(t, np.int16).reshape(-1, 2) for t in ([[2, 5], [6, 20]], [], [[0, 30]])]
    pairs = Pairs(["A tone.", "Another tone.", "Tone?"], ids, times)
    task = SpeechLMTask(pairs, pairs, Spelling(tmp_path), table, np.arange(SPEECH_IDS) % 9)
    with torch.no_grad():
        first = task.evaluate(task.network)["cross_entropy"]
    assert first == pytest.approx(np.log(SPEECH_IDS + 200), rel=0.1)
    assert falls(task, steps=4)
