"""Whether two renderings have the same melody, from the f0 that the vocoder follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats

LOWEST_VOICED_HZ = 10.0  # CosyVoice cosyvoice/hifigan/generator.py, `nsf_voiced_threshold`


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
