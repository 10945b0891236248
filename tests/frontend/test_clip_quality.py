"""What is wrong with a clip, and which part of it is best."""

from __future__ import annotations

import re

import numpy as np
import pytest
from support.recordings import RATE, SPEECH, silence, talk

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend.clip_quality import best_cut, judge_clip


def test_a_good_clip_has_no_warnings() -> None:
    report = judge_clip(talk(3), RATE)
    assert report.warnings == ()
    assert report.seconds == pytest.approx(9.2) and 7 < report.seconds_speech < 7.6


@pytest.mark.parametrize(
    "audio, message",
    [
        (silence(5), "the clip is silent"),
        (np.zeros(0, np.float32), "the clip is silent"),
        (np.ones(1, np.float32), "the clip is silent"),
        (silence(5) + np.float32(0.3), "the clip is silent"),  # an offset is no sound
        (np.concatenate([silence(2), SPEECH[:6000], silence(2)]), "holds 0.3 s of speech"),
    ],
)
def test_a_clip_without_speech_is_refused(audio: Floats, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        judge_clip(audio, RATE)


@pytest.mark.parametrize(
    "audio, message",
    [
        (talk(1, 0.1), "lasts 2.6 s; 3 to 10 seconds give the best voice"),
        (talk(5), "lasts 15.0 s; 3 to 10 seconds give the best voice"),
        (np.concatenate([silence(2), SPEECH[:24000], silence(2)]), "s of the clip are speech"),
        (talk(2) / 100, r"very quiet \(-5\d dB\)"),
        (np.clip(talk(2) * 8, -1, 1), "is clipped"),
        (np.clip(talk(2) * 8, -1, 1) * np.float32(0.6), "is clipped"),
        (talk(2) + np.float32(0.05), "has a constant offset"),
        (np.random.default_rng(0).normal(0, 0.1, 5 * RATE), "may be noise and not speech"),
    ],
)
def test_what_harms_the_voice_is_said(audio: Floats, message: str) -> None:
    report = judge_clip(audio, RATE)
    assert any(re.search(message, warning) for warning in report.warnings), report


def test_the_best_cut_lies_in_pauses_and_avoids_clipping() -> None:
    clipped = np.clip(talk(4) * 8, -1, 1)
    audio = np.concatenate([clipped, talk(3), silence(3)])
    start, end = best_cut(audio, RATE)
    assert clipped.size - RATE // 2 <= start and end < audio.size - 2 * RATE
    assert 3 <= (end - start) / RATE <= 10
    cut = audio[start:end]
    assert np.all(cut[:1200] == 0) and np.all(cut[-1200:] == 0)
    assert judge_clip(cut, RATE).seconds_speech > 7


def test_without_pauses_the_cut_still_fits() -> None:
    audio = np.concatenate([SPEECH] * 10)
    start, end = best_cut(audio, RATE)
    assert 3 <= (end - start) / RATE <= 10


def test_a_short_clip_is_not_cut() -> None:
    assert best_cut(SPEECH, RATE) == (0, SPEECH.size)


def test_nothing_can_be_cut_from_silence() -> None:
    with pytest.raises(AudioError, match="silent"):
        best_cut(silence(60), RATE)
