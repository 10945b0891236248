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
