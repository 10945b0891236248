"""How far two arrays are from each other, in the three ways that this project uses."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats

_FFT, _HOP = 1024, 256  # samples, at 24 kHz 43 and 11 ms
_RANGE_DB = 60.0  # below the loudest bin; what is further down is not heard
MOST_DB = 200.0  # of an SQNR: equal arrays, as a number that JSON can hold


def relative_error(got: NDArray[np.generic], want: NDArray[np.generic]) -> float:
    """max |got - want| / max |want|; infinite if shapes differ or a value is not finite."""
    if not _comparable(got, want):
        return math.inf
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64)).max(initial=0.0)
    return float(difference / max(float(np.abs(want).max(initial=0.0)), 1e-12))


def sqnr_db(got: NDArray[np.generic], want: NDArray[np.generic]) -> float:
    """20 log10(|want| / |want - got|), at most 200 dB; minus infinity if not comparable."""
    if not _comparable(got, want):
        return -math.inf
    signal = float(np.linalg.norm(want.astype(np.float64)))
    noise = float(np.linalg.norm(want.astype(np.float64) - got.astype(np.float64)))
    if noise <= signal * 10 ** (-MOST_DB / 20):
        return MOST_DB
    return 20 * math.log10(signal / noise) if signal else -MOST_DB


def spectrum_difference_db(got: Floats, want: Floats) -> float:
    """Mean absolute difference of two log-magnitude spectrograms of waveforms [n], in dB.

    Bins are cut off 60 dB below the loudest of `want`: phases and inaudible bins don't count.
    Infinite if the lengths differ or a value is not finite.
    """
    if not _comparable(got, want):
        return math.inf
    magnitudes = [_magnitude(want), _magnitude(got)]
    floor = max(float(magnitudes[0].max()) * 10 ** (-_RANGE_DB / 20), 1e-12)
    log_want, log_got = (20 * np.log10(np.maximum(part, floor)) for part in magnitudes)
    return float(np.abs(log_want - log_got).mean())


def _magnitude(waveform: Floats) -> NDArray[np.float64]:
    """[frames, bins]"""
    padded = np.pad(waveform.astype(np.float64), _FFT // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _FFT)[::_HOP]
    magnitude: NDArray[np.float64] = np.abs(np.fft.rfft(frames * np.hanning(_FFT)))
    return magnitude


def _comparable(got: NDArray[np.generic], want: NDArray[np.generic]) -> bool:
    return got.shape == want.shape and bool(np.isfinite(got).all() and np.isfinite(want).all())
