"""Speaker encoders: whose voices are alike, and what is said where none is installed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.command_line import CLIPS

from cosyvoice_cpu.evaluation.quality.speakers import cosine, load_resemblyzer
from cosyvoice_cpu.evaluation.quality.speakers import missing_packages as lacks_encoder
from cosyvoice_cpu.frontend import resample


def test_the_cosine_of_embeddings_ignores_their_length():
    a, b = np.array([1, 0], np.float32), np.array([1, 1], np.float32)
    assert cosine(a, b) == pytest.approx(math.sqrt(0.5))
    assert cosine(a, 9 * b) == pytest.approx(cosine(a, b))
    assert cosine(a, np.zeros(2, np.float32)) == 0.0


needs_encoder = pytest.mark.skipif(bool(lacks_encoder()), reason="resemblyzer is missing")


def wave16k(clip: Path) -> np.ndarray:
    samples, rate = soundfile.read(clip, dtype="float32")
    return resample(samples, rate, 16000)


@needs_encoder
def test_two_clips_of_one_speaker_are_closer_than_those_of_two() -> None:
    encoder = load_resemblyzer()
    austen, again, other = (
        encoder.embed(wave16k(CLIPS / name))
        for name in (
            "librivox-austen-0870.flac",
            "librivox-austen-0890.flac",
            "aishell-BAC009S0764W0121.flac",
        )
    )
    assert austen is not None
    assert again is not None
    assert other is not None
    assert cosine(austen, again) > 0.75 > cosine(austen, other)


@needs_encoder
@pytest.mark.parametrize("samples", [0, 100, 16000])
def test_silence_has_no_voice(samples: int) -> None:
    assert load_resemblyzer().embed(np.zeros(samples, np.float32)) is None
