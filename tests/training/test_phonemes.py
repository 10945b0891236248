"""Phonemes by token."""

from __future__ import annotations

from training.corpus import Corpus
from training.phonemes import SILENCE, token_labels


def test_labels_follow_the_units_and_blanks_join_the_next_phoneme(folder):
    utterance = Corpus(folder, "heldout")[0]
    labels = token_labels(utterance)
    assert labels.shape == (utterance.tokens,)
    assert set(labels) - {SILENCE} and len(set(labels) - {SILENCE}) == 1
