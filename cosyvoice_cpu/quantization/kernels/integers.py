"""Float matrices as integers and scales, in the layouts that ONNX Runtime's kernels read.

8 bits are symmetric: value = integer * scale, the scale chosen so that the largest value of its
group is 127. 4 bits have steps so wide that the scale is searched: the one with the least squared
error. A group of zeros has the scale 1, so that nothing is divided by zero.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats

_LARGEST = 127
UNSIGNED_ZERO = 128  # MatMulNBits reads unsigned integers and takes this for zero
_ROWS_AT_ONCE = 8192  # of a table: half a gigabyte is not copied whole
NIBBLE_ZERO = 8  # the same for 4 bits, whose integers are 0..15
_MOST = 15
# What the value of largest magnitude becomes, before rounding: 7 is plain rounding by the largest
# value; below -8 the largest is clipped to -8 and all others get finer steps.
_LARGEST_BECOMES = (7.0, -6.5, -7.0, -7.5, -8.0, -8.5, -9.0)
_RANGES = (1.0, 0.95, 0.9, 0.85, 0.8)  # shares of a group's range that 0..15 cover


def quantize_columns(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[K, N] as int8 [K, N] with one scale per column (output channel), [N]."""
    scale = _scale(np.abs(weight).max(axis=0))
    return np.rint(weight / scale).astype(np.int8), scale


def quantize_by(weight: Floats, scale: Floats) -> NDArray[np.int8]:
    """int8 by given scales, which broadcast against `weight`; what is beyond 127 of them is 127."""
    integers: NDArray[np.int8] = np.clip(np.rint(weight / scale), -_LARGEST, _LARGEST).astype(
        np.int8
    )
    return integers


def quantize_blocks(weight: Floats, block: int) -> tuple[NDArray[np.uint8], Floats]:
    """[K, N] as uint8 [N, blocks, block] and scales [N * blocks]: `block` values of a column each.

    The last block is filled with zeros if K is no multiple. Layout of ONNX Runtime's MatMulNBits.
    """
    groups = _groups(weight, block)
    scale = _scale(np.abs(groups).max(axis=2))
    integers = np.rint(groups / scale[:, :, None]) + UNSIGNED_ZERO
    return integers.astype(np.uint8), scale.reshape(-1)


def quantize_nibbles(weight: Floats, block: int) -> tuple[NDArray[np.uint8], Floats]:
    """[K, N] as 4-bit integers [N, blocks, block / 2] and scales [N * blocks].

    value = (integer - 8) * scale; of two neighbours the first is in the lower half of its byte. The
    scale, which may be negative, is the best by least squares among a few roundings of the group.
    Layout of ONNX Runtime's MatMulNBits. Source of the search: llama.cpp ggml/src/ggml-quants.c,
    make_qx_quants (MIT), without its weighting.
    """
    integers, scale = _nearest_nibbles(_groups(weight, block))
    return _packed(integers + NIBBLE_ZERO), scale.reshape(-1)


def quantize_nibbles_from_zero(
    weight: Floats, block: int
) -> tuple[NDArray[np.uint8], Floats, NDArray[np.uint8]]:
    """The same with a zero point per group: integers, scales and zero points [N, blocks / 2].

    value = (integer - zero point) * scale: for groups whose values lie to one side of 0.
    """
    groups = _groups(weight, block)
    low = np.minimum(groups.min(axis=2, keepdims=True), 0)
    high = np.maximum(groups.max(axis=2, keepdims=True), 0)
    best = np.full(low.shape, np.inf, np.float32)
    scale, zero = np.ones_like(low), np.zeros_like(low)
    integers = np.zeros_like(groups)
    for share in _RANGES:
        step = _step((high - low) * np.float32(share / _MOST))
        origin = np.clip(np.rint(-low * np.float32(share) / step), 0, _MOST)
        tried = np.clip(np.rint(groups / step) + origin, 0, _MOST)
        error = np.square((tried - origin) * step - groups).sum(axis=2, keepdims=True)
        better = error < best
        best, scale = np.where(better, error, best), np.where(better, step, scale)
        zero, integers = np.where(better, origin, zero), np.where(better, tried, integers)
    zeros = zero[:, :, 0]
    if zeros.shape[1] % 2:
        zeros = np.pad(zeros, ((0, 0), (0, 1)))
    return _packed(integers), scale.reshape(-1), _packed(zeros)


def quantize_row_nibbles(
    table: Floats, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """[R, W] as 4-bit integers [R, W / 2] and scales [R, W / block]; W is a multiple of `block`."""
    rows, width = table.shape
    integers = np.empty((rows, width // 2), np.uint8)
    scale = np.empty((rows, width // block), np.float16)
    for start in range(0, rows, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        groups = np.asarray(table[part], np.float32).reshape(-1, width // block, block)
        nibbles, steps = _nearest_nibbles(groups)
        integers[part] = _packed(nibbles + NIBBLE_ZERO).reshape(len(groups), -1)
        scale[part] = steps[:, :, 0]
    return integers, scale


def quantize_rows(table: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[R, W] as int8 [R, W] with one scale per row, [R]; a few thousand rows at a time."""
    integers = np.empty(table.shape, np.int8)
    scale = np.empty(len(table), np.float32)
    for start in range(0, len(table), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        scale[rows] = _scale(np.abs(table[rows]).max(axis=1))
        integers[rows] = np.rint(table[rows] / scale[rows, None])
    return integers, scale


def _groups(weight: Floats, block: int) -> Floats:
    """[K, N] as [N, blocks, block], the last block filled with zeros."""
    rows, columns = weight.shape
    blocks = -(-rows // block)
    groups = np.zeros((columns, blocks * block), np.float32)
    groups[:, :rows] = weight.T
    return groups.reshape(columns, blocks, block)


def _nearest_nibbles(groups: Floats) -> tuple[Floats, Floats]:
    """Integers -8..7 [..., block] and scales [..., 1]: the least squared error of each group."""
    largest = np.take_along_axis(groups, np.abs(groups).argmax(-1)[..., None], -1)
    integers, scale = np.zeros_like(groups), np.ones_like(largest)
    most = np.zeros_like(largest)
    for becomes in _LARGEST_BECOMES:
        tried = groups / _step(largest / np.float32(becomes))
        np.clip(np.rint(tried, out=tried), -NIBBLE_ZERO, NIBBLE_ZERO - 1, out=tried)
        # For given integers q the best scale is <w, q> / <q, q>; it leaves |w|^2 - explained.
        product = (groups * tried).sum(-1, keepdims=True)
        square = np.square(tried).sum(-1, keepdims=True)
        fitted = product / np.maximum(square, 1)
        explained = product * fitted
        better = explained > most
        most, scale = np.where(better, explained, most), np.where(better, fitted, scale)
        integers = np.where(better, tried, integers)
    return integers, scale


def _packed(nibbles: Floats) -> NDArray[np.uint8]:
    """Integers 0..15 [..., n] as bytes [..., n / 2], the first of a pair in the lower half."""
    whole = nibbles.astype(np.uint8)
    packed: NDArray[np.uint8] = whole[..., ::2] | whole[..., 1::2] << np.uint8(4)
    return packed


def _scale(largest: Floats) -> Floats:
    return _step((largest / np.float32(_LARGEST)).astype(np.float32))


def _step(scale: Floats) -> Floats:
    # Below this the quotient would overflow or lose its bits: such a group is zero for a network.
    return np.where(np.abs(scale) > np.finfo(np.float32).tiny, scale, np.float32(1))
