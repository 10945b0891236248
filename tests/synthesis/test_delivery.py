"""Audio at another rate, at a loudness, and never clipped."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.synthesis.delivery import PEAK, Delivery, limit, resample
from cosyvoice_cpu.synthesis.loudness import loudness_lufs


def speech_like(rate: int = 24000, seconds: float = 4.0, level: float = 0.1) -> np.ndarray:
    """Noise in syllables with pauses; the peaks are 12 dB and more above the mean."""
    rng = np.random.default_rng(0)
    envelope = np.repeat(rng.choice([0.01, 0.3, 1.0], round(seconds * 5)), rate // 5)
    return (level * envelope * rng.normal(0, 1, len(envelope))).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 24000, 44100, 48000, 96000])
def test_another_rate_keeps_duration_pitch_and_level(rate: int) -> None:
    time = np.arange(24000) / 24000
    tone = (0.5 * np.sin(2 * np.pi * 440 * time)).astype(np.float32)
    samples, delivered = Delivery(rate).apply(tone, 24000)
    assert delivered == rate and samples.dtype == np.float32
    assert abs(len(samples) - rate) <= 1
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(len(samples)) / rate)
    assert np.abs(samples - expected)[rate // 20 : -rate // 20].max() < 1e-3


def test_what_the_lower_rate_can_t_hold_is_gone_and_does_not_fold_back() -> None:
    tone = np.sin(2 * np.pi * 7000 * np.arange(24000) / 24000).astype(np.float32)
    assert np.abs(resample(tone, 24000, 8000)[400:-400]).max() < 1e-3


@pytest.mark.parametrize("target", [-30.0, -23.0, -16.0, -12.0])
@pytest.mark.parametrize("level", [0.003, 0.1, 0.5])
@pytest.mark.parametrize("rate", [None, 8000, 48000])
def test_every_level_is_brought_to_the_loudness_that_is_asked_for(
    rate: int | None, level: float, target: float
) -> None:
    samples, rate = Delivery(rate, target).apply(speech_like(level=level), 24000)
    assert loudness_lufs(samples, rate) == pytest.approx(target, abs=0.5)
    assert np.abs(samples).max() <= PEAK + 1e-6


def test_silence_stays_silence_at_every_loudness() -> None:
    silence = np.zeros(24000, np.float32)
    assert np.array_equal(Delivery(None, -16.0).apply(silence, 24000)[0], silence)


def test_audio_within_full_scale_is_left_as_it_is() -> None:
    samples = speech_like()
    assert Delivery().apply(samples, 24000) == (samples, 24000)


@given(
    peaks=st.lists(st.tuples(st.integers(0, 9_999), st.floats(-20, 20)), max_size=30),
    ceiling=st.sampled_from([0.5, PEAK, 1.0]),
)
def test_a_limited_waveform_keeps_below_the_ceiling_and_its_shape(
    peaks: list[tuple[int, float]], ceiling: float
) -> None:
    samples = np.sin(np.arange(10_000) / 20).astype(np.float32) * np.float32(0.4)
    for place, height in peaks:
        samples[place] = height
    limited = limit(samples, 24000, ceiling)
    assert limited.shape == samples.shape
    assert np.abs(limited).max() <= ceiling + 1e-6
    assert np.all(np.abs(limited) <= np.abs(samples) + 1e-6)
    assert np.all(limited * samples >= 0)
    far = np.ones(10_000, bool)
    for place, _ in peaks:
        far[max(0, place - 121) : place + 122] = False
    assert np.array_equal(limited[far], samples[far])


def test_limiting_leaves_no_flat_tops() -> None:
    loud = limit(speech_like(level=2.0), 24000, PEAK)
    at_the_top = np.abs(loud) >= PEAK - 1e-5
    assert not np.any(at_the_top[1:] & at_the_top[:-1])


@pytest.mark.parametrize(
    ("rate", "loudness", "what"),
    [
        (0, None, "the rate 0 is outside 8000 to 192000 Hz"),
        (7999, None, "the rate 7999 is outside 8000 to 192000 Hz"),
        (10**9, None, "the rate 1000000000 is outside 8000 to 192000 Hz"),
        (None, 0.0, "the loudness 0 is outside -50 to -5 LUFS"),
        (None, float("nan"), "the loudness nan is outside -50 to -5 LUFS"),
    ],
)
def test_what_can_t_be_delivered_is_wrong_usage(rate, loudness, what) -> None:
    with pytest.raises(UsageError) as caught:
        Delivery(rate, loudness).check()
    assert caught.value.what == what
