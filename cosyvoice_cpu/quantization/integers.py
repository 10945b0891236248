"""Float matrices as 8-bit integers and scales, in the layouts that ONNX Runtime's kernels read.

All of them are symmetric: value = integer * scale, the scale chosen so that the largest value of
its group is 127. A group of zeros has the scale 1, so that nothing is divided by zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

_LARGEST = 127
UNSIGNED_ZERO = 128  # MatMulNBits reads unsigned integers and takes this for zero
_ROWS_AT_ONCE = 8192  # of a table: half a gigabyte is not copied whole


def quantize_columns(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[K, N] as int8 [K, N] with one scale per column (output channel), [N]."""
    scale = _scale(np.abs(weight).max(axis=0))
    return np.rint(weight / scale).astype(np.int8), scale


def quantize_blocks(weight: Floats, block: int) -> tuple[NDArray[np.uint8], Floats]:
    """[K, N] as uint8 [N, blocks, block] and scales [N * blocks]: `block` values of a column each.

    The last block is filled with zeros if K is no multiple. Layout of ONNX Runtime's MatMulNBits.
    """
    rows, columns = weight.shape
    blocks = -(-rows // block)
    groups = np.zeros((columns, blocks * block), np.float32)
    groups[:, :rows] = weight.T
    groups = groups.reshape(columns, blocks, block)
    scale = _scale(np.abs(groups).max(axis=2))
    integers = np.rint(groups / scale[:, :, None]) + UNSIGNED_ZERO
    return integers.astype(np.uint8), scale.reshape(-1)


def quantize_rows(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[R, W] as int8 [R, W] with one scale per row, [R]; a few thousand rows at a time."""
    integers = np.empty(table.shape, np.int8)
    scale = np.empty(len(table), np.float32)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scale[rows] = _scale(np.abs(table[rows]).max(axis=1))
        integers[rows] = np.rint(table[rows] / scale[rows, None])
    return integers, scale


def _scale(largest: Floats) -> Floats:
    scale = (largest / np.float32(_LARGEST)).astype(np.float32)
    # Below this the quotient would overflow or lose its bits: such a group is zero for a network.
    return np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1))
