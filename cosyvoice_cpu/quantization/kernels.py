"""The engine's integer matrix products: how each wants its weight, and the node that calls it.

A kernel is a row of `KERNELS`; a recipe names one per layer with its settings, the layer's `Form`.
Convolutions have one too, but only to show that they should not: ONNX Runtime's integer convolution
is slower than its float one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Literal, cast, get_args

import msgspec
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.graph import MICROSOFT
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.integers import (
    quantize_blocks,
    quantize_columns,
    quantize_nibbles,
    quantize_nibbles_from_zero,
    quantize_row_nibbles,
    quantize_rows,
)
from cosyvoice_cpu.quantization.parameters import LayerParameters
from cosyvoice_cpu.quantization.static import pack_static, static_nodes

KernelName = Literal["dynamic-int8", "weight-only-int8", "weight-only-int4", "static-int8"]
KERNEL_NAMES: tuple[KernelName, ...] = get_args(KernelName)
SCALE = ".scale"  # suffix of the scales' name, behind the weight's
ZERO = ".zero"  # of the zero points'


class Form(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a layer is quantized."""

    kernel: KernelName
    block_size: Literal[16, 32, 64, 128, 256] = 128  # weight-only: values per scale
    zero_points: bool = False  # weight-only-int4: blocks that need not lie around 0


@dataclass(frozen=True)
class Kernel:
    """One way to compute x @ w in integers."""

    precision: str  # as the manifest calls a component that uses it
    pack: Callable[[str, Weight, Form, LayerParameters | None], dict[str, Weight]]
    # (name, weight [K, N], form, what a calibration found for the layer)
    nodes: Callable[[onnx.NodeProto, str, tuple[int, ...], str | None, Form], list[onnx.NodeProto]]
    # (float node, weight's name, its shape [K, N], bias or None, form); the last one has the float
    # node's output
    calibrated: bool = False  # can't do without what a calibration found
    convolutions: bool = False  # computes Conv with a weight [out, in, kernel] as well


def _pack_columns(
    name: str, weight: Weight, form: Form, parameters: LayerParameters | None
) -> dict[str, Weight]:
    shape = weight.shape
    return {
        name: Weight(shape, np.dtype(np.int8), lambda: quantize_columns(_floats(weight))[0]),
        name + SCALE: Weight(
            (shape[1],), np.dtype(np.float32), lambda: quantize_columns(_floats(weight))[1]
        ),
    }


def _dynamic_nodes(
    node: onnx.NodeProto, weight: str, shape: tuple[int, ...], bias: str | None, form: Form
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
    name: str, weight: Weight, form: Form, parameters: LayerParameters | None
) -> dict[str, Weight]:
    rows, columns = weight.shape
    blocks = -(-rows // form.block_size)
    kinds: list[tuple[str, tuple[int, ...], type[np.generic]]] = [
        (name, (columns, blocks, form.block_size * _bits(form) // 8), np.uint8),
        (name + SCALE, (columns * blocks,), np.float32),
    ]
    if _has_zeros(form):
        kinds.append((name + ZERO, (columns, -(-blocks // 2)), np.uint8))
    return {
        key: Weight(shape, np.dtype(dtype), partial(_part, _blocks, part, weight, form))
        for part, (key, shape, dtype) in enumerate(kinds)
    }


def _part(
    quantize: Callable[..., tuple[NDArray[Any], ...]], part: int, *arguments: object
) -> NDArray[Any]:
    return quantize(*arguments)[part]


@lru_cache(maxsize=1)  # the parts of a layer are written one after the other
def _blocks(weight: Weight, form: Form) -> tuple[NDArray[Any], ...]:
    """Integers, scales and, if there are any, zero points."""
    if _bits(form) == 8:
        return quantize_blocks(_floats(weight), form.block_size)
    if _has_zeros(form):
        return quantize_nibbles_from_zero(_floats(weight), form.block_size)
    return quantize_nibbles(_floats(weight), form.block_size)


def _bits(form: Form) -> int:
    return 4 if form.kernel == "weight-only-int4" else 8


def _has_zeros(form: Form) -> bool:
    return form.zero_points and _bits(form) == 4


def _blocks_nodes(
    node: onnx.NodeProto, weight: str, shape: tuple[int, ...], bias: str | None, form: Form
) -> list[onnx.NodeProto]:
    """Weights are integers in blocks; accuracy level 4 lets the kernel multiply in int8."""
    zero = weight + ZERO if _has_zeros(form) else ""
    behind = [zero, "", bias] if bias else [zero] if zero else []
    product = helper.make_node(
        "MatMulNBits",
        [node.input[0], weight, weight + SCALE, *behind],
        list(node.output),
        name=node.name,
        domain=MICROSOFT,
        K=shape[0],
        N=shape[1],
        bits=_bits(form),
        block_size=form.block_size,
        accuracy_level=4,
    )
    return [product]


KERNELS: dict[KernelName, Kernel] = {
    "dynamic-int8": Kernel("int8-dynamic", _pack_columns, _dynamic_nodes),
    "weight-only-int8": Kernel("int8-weights", _pack_blocks, _blocks_nodes),
    "weight-only-int4": Kernel("int4-weights", _pack_blocks, _blocks_nodes),
    "static-int8": Kernel(
        "int8-static",
        lambda name, weight, form, parameters: pack_static(name, weight, parameters),
        lambda node, weight, shape, bias, form: static_nodes(node, weight, shape, bias),
        calibrated=True,
        convolutions=True,
    ),
}

TableFormat = Literal["float16", "int8-rows", "int4-blocks"]
TABLE_BLOCK = 32  # values of a row that share a scale in an int4 table


def pack_table(name: str, table: Weight, form: TableFormat) -> dict[str, Weight]:
    """An embedding table [R, W] as float16, int8 with a scale per row, or int4 per 32 values.

    Raises: UsageError for an int4 table whose width is no multiple of 32.
    """
    if form == "float16":
        return {
            name: Weight(
                table.shape, np.dtype(np.float16), lambda: _floats(table).astype(np.float16)
            )
        }
    rows, width = table.shape
    if form == "int4-blocks":
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
