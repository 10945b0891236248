"""Further speakers made of the main one; needs the packages of the extra `train`."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("hibari")

from training.hibari_voice import FURTHER, MAIN, HibariVoice

TEXT = "A small boat came home."


@pytest.fixture(scope="module")
def spoken():
    return {character: HibariVoice(character).speak(TEXT, 3) for character in (MAIN, *FURTHER)}


def test_all_speakers_say_a_text_phoneme_by_phoneme_at_the_same_time(spoken):
    for character in FURTHER:
        assert np.array_equal(spoken[character].units, spoken[MAIN].units)
        assert len(spoken[character].audio) == len(spoken[MAIN].audio)


def test_pitch_is_scaled_and_phase_follows_it(spoken):
    for character in FURTHER:
        f0, main = spoken[character].f0, spoken[MAIN].f0
        both = (f0 > 0) & (main > 0)
        assert both.sum() > 20
        assert np.median(f0[both] / main[both]) == pytest.approx(character.pitch, rel=0.02)
        steps = np.diff(spoken[character].phase)[both[1:] & both[:-1]] % 1
        frames = (f0[1:] / 50)[both[1:] & both[:-1]] % 1
        assert np.median(np.abs(steps - frames)) < 0.02


def test_speakers_are_about_as_loud(spoken):
    levels = {c: np.sqrt(np.mean((s.audio / 32768.0) ** 2)) for c, s in spoken.items()}
    for character in FURTHER:
        assert abs(20 * np.log10(levels[character] / levels[MAIN])) < 4


def _louder_at_pulses(speech):
    """Level within a tenth of a period around the pulses above that midway between two."""
    sample, audio = np.arange(len(speech.audio)), speech.audio / 32768.0
    frame, f0 = sample // 480, np.repeat(speech.f0, 480)
    phase = (speech.phase[frame] - (479 - sample % 480) * f0 / 24000) % 1
    from_pulse = np.minimum(phase, 1 - phase)
    near, midway = audio[(from_pulse < 0.1) & (f0 > 0)], audio[(from_pulse > 0.4) & (f0 > 0)]
    return np.sqrt(np.mean(near**2) / np.mean(midway**2))


def test_a_steady_voice_keeps_time_and_pitch_and_is_loud_at_the_pulses(spoken):
    plain, steady = spoken[MAIN], HibariVoice(steady=True).speak(TEXT, 3)
    assert np.array_equal(steady.f0, plain.f0) and np.array_equal(steady.phase, plain.phase)
    assert _louder_at_pulses(plain) < 1.0
    assert _louder_at_pulses(steady) > 1.5
