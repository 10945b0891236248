"""ONNX Runtime's integer matrix products: how each wants its weight, and the node that calls it.

A kernel is a row of `KERNELS`; a recipe names one per layer with its settings: a `KernelVariant`.
Convolutions have one too, but only to show that they should not: ONNX Runtime's integer convolution
is slower than its float one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, cast

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.graph import MICROSOFT
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.kernels.integers import (
    quantize_blocks,
    quantize_columns,
    quantize_nibbles,
    quantize_nibbles_from_zero,
    quantize_row_nibbles,
    quantize_rows,
)
from cosyvoice_cpu.quantization.kernels.parameters import LayerParameters
from cosyvoice_cpu.quantization.kernels.static import pack_static, static_nodes

KernelName = Literal["dynamic-int8", "weight-only-int8", "weight-only-int4", "static-int8"]
SCALE = ".scale"  # suffix of the scales' name, behind the weight's
ZERO = ".zero"  # of the zero points'


class KernelVariant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a layer is quantized."""

    kernel: KernelName
    block_size: Literal[16, 32, 64, 128, 256] = 128  # weight-only: values per scale
    zero_points: bool = False  # weight-only-int4: blocks that need not lie around 0

    @property
    def weight_only(self) -> bool:
        """Whether activations are quantized inside the kernel, block by block."""
        return self.kernel in ("weight-only-int8", "weight-only-int4")

    @property
    def bits(self) -> int:
        """Of a weight."""
        return 4 if self.kernel == "weight-only-int4" else 8

    @property
    def has_zero_points(self) -> bool:
        """Whether zero points are stored beside scales."""
        return self.zero_points and self.bits == 4


@dataclass(frozen=True)
class Kernel:
    """One way to compute x @ w in integers."""

    precision: str  # as the manifest calls a component that uses it
    pack: Callable[[str, Weight, KernelVariant, LayerParameters | None], dict[str, Weight]]
    # (name, weight [K, N], variant, what a calibration found for the layer)
    nodes: Callable[
        [onnx.NodeProto, str, tuple[int, ...], str | None, KernelVariant], list[onnx.NodeProto]
    ]
    # (float node, weight's name, its shape [K, N], bias or None, variant); the last one has the
    # float node's output
    calibrated: bool = False  # can't do without what a calibration found
    convolutions: bool = False  # computes Conv with a weight [out, in, kernel] as well


def _pack_columns(
    name: str, weight: Weight, variant: KernelVariant, parameters: LayerParameters | None
) -> dict[str, Weight]:
    shape = weight.shape
    return {
        name: Weight(shape, np.dtype(np.int8), lambda: quantize_columns(_floats(weight))[0]),
        name + SCALE: Weight(
            (shape[1],), np.dtype(np.float32), lambda: quantize_columns(_floats(weight))[1]
        ),
    }


def _dynamic_nodes(
    node: onnx.NodeProto,
    weight: str,
    shape: tuple[int, ...],
    bias: str | None,
    variant: KernelVariant,
) -> list[onnx.NodeProto]:
    """Activations become uint8 by the range of each call's tensor; weights are int8 by column."""
    product = helper.make_node(
        "DynamicQuantizeMatMul",
        [node.input[0], weight, weight + SCALE, *(["", bias] if bias else [])],
        list(node.output),
        name=node.name,
        domain=MICROSOFT,
    )
    return [product]


def _pack_blocks(
    name: str, weight: Weight, variant: KernelVariant, parameters: LayerParameters | None
) -> dict[str, Weight]:
    rows, columns = weight.shape
    blocks = -(-rows // variant.block_size)
    kinds: list[tuple[str, tuple[int, ...], type[np.generic]]] = [
        (name, (columns, blocks, variant.block_size * variant.bits // 8), np.uint8),
        (name + SCALE, (columns * blocks,), np.float32),
    ]
    if variant.has_zero_points:
        kinds.append((name + ZERO, (columns, -(-blocks // 2)), np.uint8))
    return {
        key: Weight(shape, np.dtype(dtype), partial(_part, _blocks, part, weight, variant))
        for part, (key, shape, dtype) in enumerate(kinds)
    }


def _part(
    quantize: Callable[..., tuple[NDArray[Any], ...]], part: int, *arguments: object
) -> NDArray[Any]:
    return quantize(*arguments)[part]


@lru_cache(maxsize=1)  # the parts of a layer are written one after the other
def _blocks(weight: Weight, variant: KernelVariant) -> tuple[NDArray[Any], ...]:
    """Integers, scales and, if there are any, zero points."""
    if variant.bits == 8:
        return quantize_blocks(_floats(weight), variant.block_size)
    if variant.has_zero_points:
        return quantize_nibbles_from_zero(_floats(weight), variant.block_size)
    return quantize_nibbles(_floats(weight), variant.block_size)


def _blocks_nodes(
    node: onnx.NodeProto,
    weight: str,
    shape: tuple[int, ...],
    bias: str | None,
    variant: KernelVariant,
) -> list[onnx.NodeProto]:
    """Weights are integers in blocks; accuracy level 4 lets the kernel multiply in int8."""
    zero = weight + ZERO if variant.has_zero_points else ""
    behind = [zero, "", bias] if bias else [zero] if zero else []
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], weight, weight + SCALE, *behind],
        list(node.output),
        name=node.name,
        domain=MICROSOFT,
        K=shape[0],
        N=shape[1],
        bits=variant.bits,
        block_size=variant.block_size,
        accuracy_level=4,
    )
    return [product]


KERNELS: dict[KernelName, Kernel] = {
    "dynamic-int8": Kernel("int8-dynamic", _pack_columns, _dynamic_nodes),
    "weight-only-int8": Kernel("int8-weights", _pack_blocks, _blocks_nodes),
    "weight-only-int4": Kernel("int4-weights", _pack_blocks, _blocks_nodes),
    "static-int8": Kernel(
        "int8-static",
        lambda name, weight, variant, parameters: pack_static(name, weight, parameters),
        lambda node, weight, shape, bias, variant: static_nodes(node, weight, shape, bias),
        calibrated=True,
        convolutions=True,
    ),
}

TableFormat = Literal["float16", "int8-rows", "int4-blocks"]
TABLE_BLOCK = 32  # values of a row that share a scale in an int4 table


def pack_table(name: str, table: Weight, layout: TableFormat) -> dict[str, Weight]:
    """An embedding table [R, W] as float16, int8 with a scale per row, or int4 per 32 values.

    Raises: UsageError for an int4 table whose width is no multiple of 32.
    """
    if layout == "float16":
        return {
            name: Weight(
                table.shape, np.dtype(np.float16), lambda: _floats(table).astype(np.float16)
            )
        }
    rows, width = table.shape
    if layout == "int4-blocks":
        if width % TABLE_BLOCK:
            raise UsageError(
                f"{name} has rows of {width} values, int4-blocks takes multiples of {TABLE_BLOCK}",
                'choose "int8-rows" for it',
            )
        return {
            key: Weight(shape, np.dtype(dtype), partial(_part, _row_nibbles, part, table))
            for part, (key, shape, dtype) in enumerate(
                [
                    (name, (rows, width // 2), np.uint8),
                    (name + SCALE, (rows, width // TABLE_BLOCK), np.float16),
                ]
            )
        }
    return {
        name: Weight(table.shape, np.dtype(np.int8), lambda: quantize_rows(_floats(table))[0]),
        name + SCALE: Weight(
            (rows,), np.dtype(np.float32), lambda: quantize_rows(_floats(table))[1]
        ),
    }


@lru_cache(maxsize=1)
def _row_nibbles(table: Weight) -> tuple[NDArray[Any], ...]:
    return quantize_row_nibbles(_floats(table), TABLE_BLOCK)


def _floats(weight: Weight) -> Floats:
    return cast("Floats", weight.load())
