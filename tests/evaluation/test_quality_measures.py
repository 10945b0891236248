"""The measures on arrays: hand-computed cases, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cosyvoice_cpu.evaluation.quality.intervals import bootstrap_interval
from cosyvoice_cpu.evaluation.quality.loudness import (
    SILENCE_DB,
    k_weighting,
    loudness_lufs,
    rms_dbfs,
)
from cosyvoice_cpu.evaluation.quality.pitch import (
    f0_error_cents,
    voiced_in_both,
    voicing_agreement,
)
from cosyvoice_cpu.evaluation.quality.speakers import cosine
from cosyvoice_cpu.evaluation.quality.spectra import log_mel, log_mel_correlation, mel_error_db
from cosyvoice_cpu.evaluation.quality.tokens import kl_divergence_nats, top1_agreement

MELS = arrays(np.float32, (4, 6), elements=st.floats(-12, 3, width=32))
LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-20, 20, width=32))
VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


def sine(hertz: float, seconds: float, rate: int, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


# Intervals


@given(VALUES, st.integers(0, 1000))
def test_the_interval_holds_the_mean_and_lies_within_the_values(values, seed):
    interval = bootstrap_interval(values, seed=seed)
    assert interval.value == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= interval.low <= interval.value <= interval.high
    assert interval.high <= max(values) + 1e-9


@given(VALUES, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_interval(values, seed):
    assert bootstrap_interval(values, seed=seed) == bootstrap_interval(values, seed=seed)


def test_weights_pool_the_error_rate_over_words():
    # 1 error in 2 words and 0 in 8 are 1 in 10, not the mean of 50 % and 0 %.
    assert bootstrap_interval([0.5, 0.0], [2, 8]).value == pytest.approx(0.1)


def test_items_without_weight_count_for_nothing():
    assert bootstrap_interval([7.0, 1.0, 1.0], [0, 1, 1]) == bootstrap_interval([1.0, 1.0])


def test_more_items_make_the_interval_narrower():
    rng = np.random.default_rng(0)
    few, many = (bootstrap_interval(rng.normal(size=n).tolist()) for n in (10, 1000))
    assert many.high - many.low < (few.high - few.low) / 4


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        interval = bootstrap_interval(rng.normal(size=40).tolist())
        covered += interval.low <= 0.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_no_weight_at_all_has_no_mean():
    with pytest.raises(ValueError, match="have no mean"):
        bootstrap_interval([1.0], [0.0])


# Levels


def test_a_square_wave_of_full_scale_has_0_dbfs_and_a_sine_3_less():
    assert rms_dbfs(np.array([1, -1] * 50, np.float32)) == pytest.approx(0.0)
    assert rms_dbfs(sine(1000, 1, 24000)) == pytest.approx(-3.01, abs=0.01)


def test_halving_the_amplitude_takes_6_db_from_both_levels():
    loud, soft = sine(440, 1, 24000), sine(440, 1, 24000, 0.5)
    assert rms_dbfs(loud) - rms_dbfs(soft) == pytest.approx(6.02, abs=0.01)
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
    assert rms_dbfs(speech) - rms_dbfs(with_pause) == pytest.approx(3.01, abs=0.01)
    assert loudness_lufs(with_pause, 24000) == pytest.approx(loudness_lufs(speech, 24000), abs=0.5)


@pytest.mark.parametrize("samples", [0, 1, 5000, 48000])
def test_silence_of_any_length_has_a_finite_level(samples):
    silence = np.zeros(samples, np.float32)
    assert rms_dbfs(silence) == loudness_lufs(silence, 24000) == SILENCE_DB


def test_audio_shorter_than_a_block_has_a_loudness():
    assert -8 < loudness_lufs(sine(997, 0.2, 24000), 24000) < 0


# Spectra


@given(MELS, MELS)
def test_spectral_measures_are_symmetric_and_bounded(a, b):
    assert log_mel_correlation(a, b) == pytest.approx(log_mel_correlation(b, a), abs=1e-9)
    assert -1 <= log_mel_correlation(a, b) <= 1
    assert mel_error_db(a, b) == pytest.approx(mel_error_db(b, a))
    assert mel_error_db(a, b) >= 0
    assert mel_error_db(a, a) == 0


@given(MELS, st.floats(0.5, 2), st.floats(-3, 3))
def test_correlation_ignores_gain_and_offset(mel, gain, offset):
    mel[0, :2] = (-12, 3)  # not constant
    moved = (mel * gain + offset).astype(np.float32)
    assert log_mel_correlation(mel, moved) == pytest.approx(1.0, abs=1e-5)
    assert log_mel_correlation(mel, -moved) == pytest.approx(-1.0, abs=1e-5)


def test_a_constant_spectrogram_correlates_with_nothing():
    flat = np.full((80, 20), -11.51, np.float32)
    assert log_mel_correlation(flat, flat) == 0.0
    assert log_mel_correlation(flat, np.random.default_rng(0).normal(size=(80, 20))) == 0.0


def test_a_mel_twice_as_strong_is_6_db_away():
    mel = np.zeros((80, 10), np.float32)
    assert mel_error_db(mel, mel + np.float32(math.log(2))) == pytest.approx(6.02, abs=0.01)


def test_a_louder_waveform_has_a_fully_correlated_log_mel():
    tone = sine(300, 1, 24000, 0.2) + np.random.default_rng(0).normal(0, 0.01, 24000)
    tone = tone.astype(np.float32)
    assert log_mel_correlation(log_mel(tone, 24000), log_mel(2 * tone, 24000)) > 0.9999


def test_a_log_mel_is_at_the_flows_rate_whatever_the_waveforms():
    assert log_mel(sine(300, 1, 16000), 16000).shape == (80, 50)


def test_mels_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match=r"\(80, 3\) and \(80, 4\)"):
        mel_error_db(np.zeros((80, 3), np.float32), np.zeros((80, 4), np.float32))


# Pitch


def test_an_octave_is_1200_cents_and_counts_only_where_both_are_voiced():
    want = np.array([100, 200, 0, 150, 5], np.float32)
    got = np.array([200, 200, 120, 0, 0], np.float32)
    assert voiced_in_both(want, got) == 2
    assert f0_error_cents(want, got) == pytest.approx(600)
    assert voicing_agreement(want, got) == pytest.approx(3 / 5)


def test_tracks_without_a_common_voiced_frame_have_no_error():
    with pytest.raises(ValueError, match="no frame is voiced"):
        f0_error_cents(np.zeros(3, np.float32), np.full(3, 100, np.float32))


# Tokens


def test_agreement_and_divergence_of_hand_computed_rows():
    want = np.log(np.array([[0.5, 0.5], [0.9, 0.1]], np.float32))
    got = np.log(np.array([[0.25, 0.75], [0.9, 0.1]], np.float32))
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert kl_divergence_nats(want, got) == pytest.approx(first / 2, rel=1e-5)
    assert top1_agreement(want[1:], got[1:]) == 1.0
    assert top1_agreement(np.array([[0, 1], [1, 0]]), np.array([[1, 0], [1, 0]])) == 0.5


@given(LOGITS, LOGITS, st.floats(-50, 50))
def test_divergence_is_not_negative_and_ignores_a_shift_of_all_logits(a, b, shift):
    divergence = kl_divergence_nats(a, b)
    assert divergence >= 0
    assert kl_divergence_nats(a, a) == pytest.approx(0, abs=1e-9)
    shifted = (b.astype(np.float64) + shift).astype(np.float64)
    assert kl_divergence_nats(a, shifted) == pytest.approx(divergence, rel=1e-6, abs=1e-9)


# Voices


def test_the_cosine_of_embeddings_ignores_their_length():
    a, b = np.array([1, 0], np.float32), np.array([1, 1], np.float32)
    assert cosine(a, b) == pytest.approx(math.sqrt(0.5))
    assert cosine(a, 9 * b) == pytest.approx(cosine(a, b))
    assert cosine(a, np.zeros(2, np.float32)) == 0.0
