"""How far two arrays are apart: any arrays, waveforms, log-mels, f0 tracks, logits."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.frontend.mel import FLOW_RATE, mel_spectrogram
from cosyvoice_cpu.frontend.resampling import resample

_FFT, _HOP = 1024, 256  # samples, at 24 kHz 43 and 11 ms
_RANGE_DB = 60.0  # below the loudest bin; what is further down is not heard
MOST_DB = 200.0  # of an SQNR: equal arrays, as a number that JSON can hold
DB_PER_NEPER = 20 / math.log(10)  # log-mels are natural logarithms of magnitudes
LOWEST_VOICED_HZ = 10.0  # CosyVoice cosyvoice/hifigan/generator.py, `nsf_voiced_threshold`


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


def voiced_in_both(want: Floats, got: Floats) -> int:
    """Frames that count for `f0_error_cents`; want, got [frames] in Hz."""
    return int(np.sum(_voiced(want) & _voiced(got)))


def f0_error_cents(want: Floats, got: Floats) -> float:
    """Mean distance of two f0 tracks [frames] in Hz, in cents, where both are voiced.

    A semitone is 100 cents. Raises: ValueError if no frame is voiced in both.
    """
    both = _voiced(want) & _voiced(got)
    if not both.any():
        raise ValueError("no frame is voiced in both tracks")
    ratio = got[both].astype(np.float64) / want[both].astype(np.float64)
    return float(np.mean(np.abs(1200 * np.log2(ratio))))


def voicing_agreement(want: Floats, got: Floats) -> float:
    """Share of frames, 0 to 1, that are voiced in both tracks [frames] or in none."""
    return float(np.mean(_voiced(want) == _voiced(got)))


def _voiced(f0: Floats) -> NDArray[np.bool_]:
    return np.asarray(f0 >= LOWEST_VOICED_HZ)


def top1_agreement(want: Floats, got: Floats) -> float:
    """Share of rows, 0 to 1, whose most likely id is the same; logits [N, V] each."""
    return float(np.mean(want.argmax(1) == got.argmax(1)))


def kl_divergence_nats(want: Floats, got: Floats) -> float:
    """Mean over rows of KL(want || got) in nats per token; raw logits [N, V] each.

    The extra code length if `got` stands in for `want`: 0 only for equal distributions.
    Source: Kullback and Leibler, 1951.
    """
    log_p, log_q = _log_softmax(want), _log_softmax(got)
    return max(0.0, float(np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))))


def _log_softmax(logits: Floats) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log
