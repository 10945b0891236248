"""Distances of arrays: hand-computed cases, and what must not matter."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cosyvoice_cpu.evaluation.distances import (
    f0_error_cents,
    kl_divergence_nats,
    log_mel,
    log_mel_correlation,
    mel_error_db,
    top1_agreement,
    voiced_in_both,
    voicing_agreement,
)

MELS = arrays(np.float32, (4, 6), elements=st.floats(-12, 3, width=32))
LOGITS = arrays(np.float32, (3, 5), elements=st.floats(-20, 20, width=32))


def sine(hertz: float, seconds: float, rate: int, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


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


def test_an_octave_is_1200_cents_and_counts_only_where_both_are_voiced():
    want = np.array([100, 200, 0, 150, 5], np.float32)
    got = np.array([200, 200, 120, 0, 0], np.float32)
    assert voiced_in_both(want, got) == 2
    assert f0_error_cents(want, got) == pytest.approx(600)
    assert voicing_agreement(want, got) == pytest.approx(3 / 5)


def test_tracks_without_a_common_voiced_frame_have_no_error():
    with pytest.raises(ValueError, match="no frame is voiced"):
        f0_error_cents(np.zeros(3, np.float32), np.full(3, 100, np.float32))


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
