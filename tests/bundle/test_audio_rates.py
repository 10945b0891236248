"""The rates of any generation: whole numbers of frames, and what does not divide evenly."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.bundle.manifest import Audio

COSYVOICE3 = Audio(sample_rate=24000, token_rate=25.0, mel_frames_per_token=2.0)
COSYVOICE_300M = Audio(sample_rate=22050, token_rate=50.0, mel_frames_per_token=22050 / (256 * 50))


@pytest.mark.parametrize(
    ("audio", "frames_per_token", "frame_rate", "hop"),
    [
        (COSYVOICE3, Fraction(2), Fraction(50), 480),
        (COSYVOICE_300M, Fraction(441, 256), Fraction(22050, 256), 256),
    ],
)
def test_a_frame_is_its_hop_and_a_token_its_fraction_of_frames(
    audio: Audio, frames_per_token: Fraction, frame_rate: Fraction, hop: int
) -> None:
    assert audio.frames_per_token == frames_per_token
    assert audio.frame_rate == frame_rate
    assert audio.samples_per_frame == hop


def test_265_tokens_of_the_300m_are_456_frames() -> None:
    assert COSYVOICE_300M.frames_of(265) == 456
    assert COSYVOICE_300M.frames_of(120) == 206  # a window of its stream


@given(audio=st.sampled_from([COSYVOICE3, COSYVOICE_300M]), frames=st.integers(0, 15000))
def test_the_tokens_within_some_frames_are_the_most_that_fit(audio: Audio, frames: int) -> None:
    tokens = audio.tokens_within(frames)
    assert audio.frames_of(tokens) <= frames
    assert (tokens + 1) * audio.frames_per_token > frames
