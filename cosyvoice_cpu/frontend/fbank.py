"""Kaldi filter banks for the speaker encoder (CAM++)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.frontend.pcm import Doubles, as_mono, frames, require_samples

RATE = 16_000  # Hz
WINDOW = 400  # 25 ms
SHIFT = 160  # 10 ms
FFT = 512
BINS = 80
LOWEST, HIGHEST = 20.0, 8_000.0  # Hz
PREEMPHASIS = 0.97
ENERGY_FLOOR = float(np.finfo(np.float32).eps)


def kaldi_fbank(audio_16k: NDArray[Any]) -> Floats:
    """Log filter-bank energies with their mean over time removed, 100 frames a second.

    Shapes: audio_16k [n] at 16 kHz, in [-1, 1] and not in the 16-bit range -> [T, 80],
    T = 1 + (n - 400) // 160. One frame alone is all zeros.
    Raises: AudioError below 400 samples.
    Source: torchaudio compliance/kaldi.py, `fbank` (num_mel_bins=80, dither=0), as CosyVoice
    cosyvoice/cli/frontend.py (`_extract_spk_embedding`) calls it.
    """
    audio = as_mono(audio_16k)
    require_samples(audio, WINDOW, RATE, "speaker encoder's filter bank")
    rows = frames(audio, WINDOW, SHIFT)  # [T, 400]
    rows -= rows.mean(axis=1, keepdims=True)
    # The frame's first sample stands for the one before it.
    before = np.concatenate([rows[:, :1], rows[:, :-1]], axis=1)
    rows = (rows - PREEMPHASIS * before) * _povey_window()
    power = np.abs(np.fft.rfft(rows, FFT)) ** 2  # [T, 257]
    energies = power @ _triangles().T
    log = np.log(np.maximum(energies, ENERGY_FLOOR))
    return np.asarray(log - log.mean(axis=0), dtype=np.float32)


@lru_cache(maxsize=1)
def _povey_window() -> Doubles:
    """Symmetric Hann to the power 0.85, [400]."""
    window = np.hanning(WINDOW) ** 0.85
    return window.astype(np.float32).astype(np.float64)


@lru_cache(maxsize=1)
def _triangles() -> Doubles:
    """Triangles [80, 257] of height 1, linear in Kaldi's mel; the bin at 8 kHz stays unused."""
    low, high = _kaldi_mel(np.array([LOWEST, HIGHEST], dtype=np.float64))
    edges = low + np.arange(BINS + 2) * (high - low) / (BINS + 1)
    left, centre, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    mel = _kaldi_mel(np.arange(FFT // 2, dtype=np.float64) * (RATE / FFT))[None, :]
    up, down = (mel - left) / (centre - left), (right - mel) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(up, down))
    return np.pad(triangles, ((0, 0), (0, 1))).astype(np.float32).astype(np.float64)


def _kaldi_mel(hertz: Doubles) -> Doubles:
    return np.asarray(1127.0 * np.log1p(hertz / 700.0), dtype=np.float64)
