"""The recogniser of mel spectrograms learns."""

from __future__ import annotations

from support.training_examples import falls

from training.corpus import Corpus
from training.mel_recogniser import MelRecogniserTask


def test_the_mel_recogniser_learns_one_batch(folder):
    task = MelRecogniserTask(Corpus(folder, "train"), Corpus(folder, "heldout"), batch=2, tokens=40)
    assert falls(task)
    assert 0 <= task.evaluate(task.network)["phonemes_right"] <= 1
