"""What lies before, between and behind the words of the embedded voice."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from cosyvoice_cpu import Synthesizer
from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.demo import DEMO_BUNDLE

VOICES = ("hibari-heart-1", "hibari-low-1", "hibari-high-1")
TEXTS = (
    "Hello there.",
    "The weather is fine today.",
    "Open the window, please.",
    "I have seen many things in my life.",
    "What time is it?",
    "She sells sea shells.",
    "Nobody knows.",
    "At seven we will meet near the river.",
    "Yes.",
    "Good morning, ladies and gentlemen.",
)


@pytest.fixture(scope="module")
def synthesizer() -> Synthesizer:
    return Synthesizer.load(DEMO_BUNDLE, threads=1)


def peak_db(samples: Floats) -> float:
    return float(20 * np.log10(np.abs(samples).max() + 1e-9))


@pytest.mark.parametrize(
    ("voice", "text"), [(VOICES[number % 3], text) for number, text in enumerate(TEXTS)]
)
def test_nothing_ticks_before_the_first_word_nor_behind_the_last(
    synthesizer: Synthesizer, voice: str, text: str
) -> None:
    audio = synthesizer.speak(text, voice)
    edge = audio.sample_rate * 60 // 1000
    assert peak_db(audio.samples[:edge]) < -60
    assert peak_db(audio.samples[-edge:]) < -60


@pytest.mark.parametrize("voice", VOICES)
def test_nothing_ticks_where_two_pieces_are_joined(synthesizer: Synthesizer, voice: str) -> None:
    half = "It was late, and nobody came to the door of the old house near the river"
    pieces = list(synthesizer.pieces(f"{half}, {half}. {half}, {half}.", voice))
    assert len(pieces) > 1
    edge = synthesizer.sample_rate * 60 // 1000
    for before, after in pairwise(pieces):
        assert peak_db(np.concatenate([before.samples[-edge:], after.samples[:edge]])) < -60
