"""Loudness has the values of ITU-R BS.1770."""

from __future__ import annotations

import numpy as np
import pytest

from cosyvoice_cpu.synthesis.loudness import (
    SILENCE_DB,
    k_weighting,
    loudness_lufs,
)


def sine(hertz: float, seconds: float, rate: int, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def test_halving_the_amplitude_takes_6_db():
    loud, soft = sine(440, 1, 24000), sine(440, 1, 24000, 0.5)
    assert loudness_lufs(loud, 24000) - loudness_lufs(soft, 24000) == pytest.approx(6.02, abs=0.01)


@pytest.mark.parametrize("rate", [16000, 24000, 48000])
def test_the_standards_sine_has_minus_3_lufs_at_every_rate(rate):
    assert loudness_lufs(sine(997, 3, rate), rate) == pytest.approx(-3.01, abs=0.05)


def test_k_weighting_at_48_khz_has_the_coefficients_of_the_standard():
    (shelf_b, shelf_a), (_, high_a) = k_weighting(48000)
    assert shelf_b == pytest.approx([1.53512485958697, -2.69169618940638, 1.19839281085285])
    assert shelf_a == pytest.approx([1.0, -1.69065929318241, 0.73248077421585])
    assert high_a == pytest.approx([1.0, -1.99004745483398, 0.99007225036621])


def test_pauses_do_not_lower_the_loudness():
    speech, pause = sine(440, 2, 24000), np.zeros(48000, np.float32)
    with_pause = np.concatenate([speech, pause])
    assert loudness_lufs(with_pause, 24000) == pytest.approx(loudness_lufs(speech, 24000), abs=0.5)


@pytest.mark.parametrize("samples", [0, 1, 5000, 48000])
def test_silence_of_any_length_has_a_finite_loudness(samples):
    silence = np.zeros(samples, np.float32)
    assert loudness_lufs(silence, 24000) == SILENCE_DB


def test_audio_shorter_than_a_block_has_a_loudness():
    assert -8 < loudness_lufs(sine(997, 0.2, 24000), 24000) < 0


@pytest.mark.parametrize("rate", [16000, 24000, 44100, 48000])
def test_speech_with_pauses_has_the_loudness_that_pyloudnorm_finds(rate):
    pyloudnorm = pytest.importorskip("pyloudnorm")
    rng = np.random.default_rng(0)
    envelope = np.repeat(rng.choice([0.001, 0.05, 0.3], 20), rate // 4)  # 5 s in syllables
    waveform = (envelope * rng.normal(0, 1, len(envelope))).astype(np.float32)
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    expected = meter.integrated_loudness(waveform.astype(np.float64))
    assert loudness_lufs(waveform, rate) == pytest.approx(expected, abs=0.05)
