"""Sentences joined to one utterance."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from training.speech import Sentence, joined


def _sentence(units, f0):
    samples = 600 * units
    return Sentence(
        phonemes=[83],
        durations=np.array([units]),
        audio=np.full(samples, 0.5, np.float32),
        f0=np.full(samples, f0),
        phase=np.cumsum(np.full(samples, f0)) / 24000,
    )


def test_sentences_are_joined_to_whole_tokens_with_silence_behind():
    speech = joined("Two.", [_sentence(3, 120.0), _sentence(2, 0.0)], voiced_above=40.0)
    assert len(speech.audio) == 960 * 4 and not speech.audio[3000:].any()
    assert speech.f0.tolist() == [120, 120, 120, 90, 0, 0, 0, 0]  # the mean over 3.75 voiced frames
    assert speech.phase[0] == pytest.approx(120 * 480 / 24000 % 1, abs=1e-3)
    assert speech.units.tolist() == [83] * 5


def test_durations_that_do_not_add_up_are_refused():
    part = _sentence(3, 100.0)
    wrong = dataclasses.replace(part, audio=part.audio[:-600])
    with pytest.raises(ValueError, match="do not add up"):
        joined("Three.", [wrong], voiced_above=40.0)
