"""Checks and framing that every audio feature shares."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError

Doubles = NDArray[np.float64]


def as_mono(audio: NDArray[Any]) -> Floats:
    """`audio` as contiguous float32 [samples].

    Raises: AudioError unless it is one-dimensional and floating point: integer samples would need a
    scale that only their file knows.
    """
    audio = np.asarray(audio)
    if audio.ndim != 1:
        raise AudioError(
            f"expected mono samples [n], got an array of shape {list(audio.shape)}",
            "average the channels first",
        )
    if audio.dtype.kind != "f":
        raise AudioError(
            f"expected floating-point samples in [-1, 1], got {audio.dtype}",
            "divide 16-bit samples by 32768",
        )
    return np.ascontiguousarray(audio, dtype=np.float32)


def require_samples(audio: Floats, shortest: int, rate: int, feature: str) -> None:
    """Raises AudioError, with the length in samples and seconds, below `shortest` samples."""
    if audio.size < shortest:
        raise AudioError(
            f"the clip has {audio.size} samples at {rate} Hz ({audio.size / rate:.3f} s); "
            f"the {feature} needs at least {shortest}",
            "give a longer clip: 3 to 10 seconds of speech is best",
        )


def frames(audio: NDArray[Any], length: int, hop: int) -> Doubles:
    """Overlapping frames [T, length], T = 1 + (samples - length) // hop, as a float64 copy."""
    view = np.lib.stride_tricks.sliding_window_view(audio, length)[::hop]
    return view.astype(np.float64)


def periodic_hann(length: int) -> Doubles:
    """Hann window [length] of period `length`, rounded to float32 as torch.hann_window is."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(length) / length)
    return window.astype(np.float32).astype(np.float64)
