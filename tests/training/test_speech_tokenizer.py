"""The speech tokenizer learns."""

from __future__ import annotations

import numpy as np
import torch
from support.training_examples import falls

from training.corpus import Corpus
from training.speech_tokenizer import (
    TokenizerTask,
    warp_frequency,
)


def test_the_speech_tokenizer_learns_one_batch(folder):
    torch.manual_seed(0)
    task = TokenizerTask(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, seconds=1)
    assert falls(task)
    assert set(task.evaluate(task.network)) >= {"phonemes_right", "codes", "repeats"}


def test_an_unwarped_frequency_axis_is_unchanged():
    log_mel = np.random.default_rng(0).random((7, 128)).astype(np.float32)
    assert np.array_equal(warp_frequency(log_mel, 1.0), log_mel)
