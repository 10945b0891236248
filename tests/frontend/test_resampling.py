"""Resampling against the original's own, and at the edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.recordings import GOLDEN, SIGNALS, mono

from cosyvoice_cpu.errors import AudioError
from cosyvoice_cpu.frontend import resample


@pytest.mark.parametrize("signal", SIGNALS)
def test_resampled_samples_equal_the_originals(signal: str) -> None:
    audio, rate = mono(signal)
    for target in (16000, 22050, 24000):
        if f"{signal}/wave{target}" in GOLDEN.files:
            got, want = resample(audio, rate, target), GOLDEN[f"{signal}/wave{target}"]
            assert got.shape == want.shape and got.dtype == np.float32
            assert np.abs(got - want).max() <= 1e-5


@settings(max_examples=30)
@given(
    st.integers(1, 5000), st.sampled_from([8000, 11025, 16000, 22050, 44100, 44101, 48000, 96000])
)
def test_the_resampled_length_is_the_ratio_rounded_up(samples: int, rate: int) -> None:
    audio = np.ones(samples, np.float32)
    assert resample(audio, rate, 24000).size == -(-samples * 24000 // rate)


def test_blocks_join_without_a_seam() -> None:
    rng = np.random.default_rng(3)
    audio = rng.standard_normal(200_000).astype(np.float32)
    whole = resample(audio, 24000, 16000)  # several blocks
    assert np.array_equal(resample(audio[90_000:96_000], 24000, 16000)[100:-100],
                          whole[60_000:64_000][100:-100])  # fmt: skip


def test_equal_rates_leave_the_samples_alone() -> None:
    audio = np.array([0.5, -1.4, 0.25], np.float32)
    assert np.array_equal(resample(audio, 16000, 16000), audio)


def test_resampling_refuses_an_empty_clip_and_an_impossible_rate() -> None:
    with pytest.raises(AudioError, match="the clip is empty"):
        resample(np.zeros(0, np.float32), 24000, 16000)
    with pytest.raises(AudioError, match="can't resample from 0 Hz"):
        resample(np.zeros(9, np.float32), 0, 16000)
