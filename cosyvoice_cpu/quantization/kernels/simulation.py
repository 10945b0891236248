"""Quantization simulated in NumPy (fake quantization): what a kernel makes of one product.

To compare choices without building a graph.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.quantization.kernels.integers import (
    NIBBLE_ZERO,
    UNSIGNED_ZERO,
    quantize_blocks,
    quantize_columns,
    quantize_nibbles,
    quantize_nibbles_from_zero,
)
from cosyvoice_cpu.quantization.kernels.variants import KernelVariant

_STEPS = 255  # of uint8
_LARGEST = 127


def simulated_product(
    x: Floats, weight: Floats, variant: KernelVariant, low: float, high: float
) -> Floats:
    """x [n, K] @ weight [K, N] with both rounded as the kernel of `variant` does it.

    `low` and `high` bound the activations of a whole call, of which `x` may be a few rows.
    """
    if variant.weight_only:
        rounded = _per_block(x, variant.block_size) @ _block_weight(weight, variant)
    else:
        integers, scale = quantize_columns(weight)
        rounded = _per_tensor(x, min(low, 0.0), max(high, 0.0)) @ (integers * scale)
    result: Floats = rounded
    return result


def _per_tensor(x: Floats, low: float, high: float) -> Floats:
    """Rounded to uint8 over one range, zero exactly."""
    scale = max((high - low) / _STEPS, float(np.finfo(np.float32).tiny))
    zero = round(-low / scale)
    integers = np.clip(np.rint(x / np.float32(scale)) + zero, 0, _STEPS)
    result: Floats = ((integers - zero) * np.float32(scale)).astype(np.float32)
    return result


def _per_block(x: Floats, block: int) -> Floats:
    """Rounded to int8 with a scale for each `block` values of a row."""
    rows, width = x.shape
    groups = np.pad(x, ((0, 0), (0, -width % block))).reshape(rows, -1, block)
    scale = np.abs(groups).max(axis=2, keepdims=True) / _LARGEST
    rounded = np.rint(groups / np.where(scale > 0, scale, 1)) * scale
    result: Floats = rounded.reshape(rows, -1)[:, :width]
    return result


def _block_weight(weight: Floats, variant: KernelVariant) -> Floats:
    """[K, N] as the block kernels read it back."""
    block, (rows, columns) = variant.block_size, weight.shape
    if variant.bits == 8:
        integers, scale = quantize_blocks(weight, block)
        values = integers.astype(np.float32) - UNSIGNED_ZERO
    elif variant.zero_points:
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
