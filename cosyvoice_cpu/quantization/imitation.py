"""What a kernel makes of a product, in NumPy: to compare choices without building a graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.quantization.integers import (
    NIBBLE_ZERO,
    UNSIGNED_ZERO,
    quantize_blocks,
    quantize_columns,
    quantize_nibbles,
    quantize_nibbles_from_zero,
)
from cosyvoice_cpu.quantization.kernels import Form

_STEPS = 255  # of uint8
_LARGEST = 127


def imitated_product(x: Floats, weight: Floats, form: Form, low: float, high: float) -> Floats:
    """x [n, K] @ weight [K, N] with both rounded as the kernel of `form` does it.

    `low` and `high` bound the activations of a whole call, of which `x` may be a few rows.
    """
    if form.kernel.startswith("weight-only"):
        rounded = _by_blocks(x, form.block_size) @ _block_weight(weight, form)
    else:
        integers, scale = quantize_columns(weight)
        rounded = _by_range(x, min(low, 0.0), max(high, 0.0)) @ (integers * scale)
    result: Floats = rounded
    return result


def _by_range(x: Floats, low: float, high: float) -> Floats:
    """Rounded to uint8 over one range, zero exactly."""
    scale = max((high - low) / _STEPS, float(np.finfo(np.float32).tiny))
    zero = round(-low / scale)
    integers = np.clip(np.rint(x / np.float32(scale)) + zero, 0, _STEPS)
    result: Floats = ((integers - zero) * np.float32(scale)).astype(np.float32)
    return result


def _by_blocks(x: Floats, block: int) -> Floats:
    """Rounded to int8 with a scale for each `block` values of a row."""
    rows, width = x.shape
    groups = np.pad(x, ((0, 0), (0, -width % block))).reshape(rows, -1, block)
    scale = np.abs(groups).max(axis=2, keepdims=True) / _LARGEST
    rounded = np.rint(groups / np.where(scale > 0, scale, 1)) * scale
    result: Floats = rounded.reshape(rows, -1)[:, :width]
    return result


def _block_weight(weight: Floats, form: Form) -> Floats:
    """[K, N] as the block kernels read it back."""
    block, (rows, columns) = form.block_size, weight.shape
    if form.kernel == "weight-only-int8":
        integers, scale = quantize_blocks(weight, block)
        values = integers.astype(np.float32) - UNSIGNED_ZERO
    elif form.zero_points:
        packed, scale, zeros = quantize_nibbles_from_zero(weight, block)
        values = _nibbles(packed) - _nibbles(zeros)[:, : packed.shape[1], None]
    else:
        packed, scale = quantize_nibbles(weight, block)
        values = _nibbles(packed) - NIBBLE_ZERO
    values = values * scale.reshape(columns, -1, 1)
    result: Floats = values.reshape(columns, -1)[:, :rows].T
    return result


def _nibbles(packed: NDArray[np.uint8]) -> Floats:
    halves = np.stack([packed & 15, packed >> 4], axis=-1)
    result: Floats = halves.reshape(*packed.shape[:-1], -1).astype(np.float32)
    return result
