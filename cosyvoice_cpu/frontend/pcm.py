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


MOST_FLOAT = 2.0  # of full scale; louder masters don't occur
_INTEGER_SCALES = ((16, 2.0**15), (24, 2.0**23), (32, 2.0**31))
_QUIETEST_PEAK = 0.01  # of full scale, which a clip at an integer's scale has at least


def within_full_scale(audio: Floats, where: str) -> tuple[Floats, tuple[str, ...]]:
    """`audio` [n] in about [-1, 1], and a warning if it had the scale of integers.

    Programs that turn 16-bit samples into floats without dividing them write such files.
    Raises: AudioError if no scale explains the level.
    """
    peak = float(np.abs(audio).max(initial=0.0))
    if peak <= MOST_FLOAT:
        return audio, ()
    for bits, scale in _INTEGER_SCALES:
        if _QUIETEST_PEAK * scale <= peak <= scale:
            said = f"{where}: samples reach {peak:.0f}; taken for {bits}-bit ones and divided"
            return audio / np.float32(scale), (f"{said} by {scale:.0f}",)
    raise AudioError(
        f"{where}: samples reach {peak:.4g}; floating-point samples lie in [-1, 1]",
        "divide them by the full scale that they were recorded with",
    )


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
