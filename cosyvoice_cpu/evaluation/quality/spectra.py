"""How alike two spectrograms look."""

from __future__ import annotations

import math

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.frontend.mel import FLOW_RATE, mel_spectrogram
from cosyvoice_cpu.frontend.resampling import resample

DB_PER_NEPER = 20 / math.log(10)  # log-mels are natural logarithms of magnitudes


def log_mel(waveform: Floats, sample_rate: int) -> Floats:
    """The flow's log-mel [80, frames] of `waveform` [n], whatever its rate.

    Raises: AudioError below 30 ms.
    """
    at_flow_rate = waveform
    if sample_rate != FLOW_RATE:
        at_flow_rate = resample(waveform, sample_rate, FLOW_RATE)
    return np.ascontiguousarray(mel_spectrogram(at_flow_rate).T)


def log_mel_correlation(want: Floats, got: Floats) -> float:
    """Pearson correlation, -1 to 1, over all bins and frames of two log-mels [bins, frames].

    A louder or flatter rendering correlates fully; 0 if one of them is constant.
    Raises: ValueError if the shapes differ.
    """
    _require_equal_shapes(want, got)
    x, y = (mel.astype(np.float64) - mel.mean(dtype=np.float64) for mel in (want, got))
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    # Rounding leaves a constant array with a norm of about 1e-13 of its size.
    smallest = 1e-12 * want.size * float(np.abs(want).max() * np.abs(got).max())
    if norm <= smallest:
        return 0.0
    return float(np.clip(np.sum(x * y) / norm, -1.0, 1.0))


def mel_error_db(want: Floats, got: Floats) -> float:
    """Mean absolute difference of two natural log-mels [bins, frames], in dB.

    Raises: ValueError if the shapes differ.
    """
    _require_equal_shapes(want, got)
    return float(np.mean(np.abs(want.astype(np.float64) - got))) * DB_PER_NEPER


def _require_equal_shapes(want: Floats, got: Floats) -> None:
    if want.shape != got.shape:
        raise ValueError(f"log-mels of shapes {want.shape} and {got.shape} can't be compared")
