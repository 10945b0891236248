"""The engine's integer matrix products: how each wants its weight, and the node that calls it.

A kernel is a row of `KERNELS`; a recipe names one per component. Convolutions have none: ONNX
Runtime's integer convolution is slower than its float one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cosyvoice_cpu.export.graph import MICROSOFT
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.integers import quantize_blocks, quantize_columns, quantize_rows

KernelName = Literal["dynamic-int8", "weight-only-int8"]
KERNEL_NAMES: tuple[KernelName, ...] = get_args(KernelName)
SCALE = ".scale"  # suffix of the scales' name, behind the weight's

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Kernel:
    """One way to compute x @ w in integers."""

    precision: str  # as the manifest calls a component that uses it
    pack: Callable[[str, Weight, int], dict[str, Weight]]  # (name, weight [K, N], block size)
    node: Callable[[onnx.NodeProto, str, tuple[int, ...], str | None, int], onnx.NodeProto]
    # (float node, weight's name, its shape [K, N], bias or None, block size)


def _pack_columns(name: str, weight: Weight, block: int) -> dict[str, Weight]:
    shape = weight.shape
    return {
        name: Weight(shape, np.dtype(np.int8), lambda: quantize_columns(_floats(weight))[0]),
        name + SCALE: Weight(
            (shape[1],), np.dtype(np.float32), lambda: quantize_columns(_floats(weight))[1]
        ),
    }


def _dynamic_node(
    node: onnx.NodeProto, weight: str, shape: tuple[int, ...], bias: str | None, block: int
) -> onnx.NodeProto:
    """Activations become uint8 by the range of each call's tensor; weights are int8 by column."""
    return helper.make_node(
        "DynamicQuantizeMatMul",
        [node.input[0], weight, weight + SCALE, *(["", bias] if bias else [])],
        list(node.output),
        name=node.name,
        domain=MICROSOFT,
    )


def _pack_blocks(name: str, weight: Weight, block: int) -> dict[str, Weight]:
    rows, columns = weight.shape
    blocks = -(-rows // block)
    return {
        name: Weight(
            (columns, blocks, block),
            np.dtype(np.uint8),
            lambda: quantize_blocks(_floats(weight), block)[0],
        ),
        name + SCALE: Weight(
            (columns * blocks,),
            np.dtype(np.float32),
            lambda: quantize_blocks(_floats(weight), block)[1],
        ),
    }


def _blocks_node(
    node: onnx.NodeProto, weight: str, shape: tuple[int, ...], bias: str | None, block: int
) -> onnx.NodeProto:
    """Weights are 8-bit in blocks; accuracy level 4 lets the kernel multiply in int8."""
    return helper.make_node(
        "MatMulNBits",
        [node.input[0], weight, weight + SCALE, *(["", "", bias] if bias else [])],
        list(node.output),
        name=node.name,
        domain=MICROSOFT,
        K=shape[0],
        N=shape[1],
        bits=8,
        block_size=block,
        accuracy_level=4,
    )


KERNELS: dict[KernelName, Kernel] = {
    "dynamic-int8": Kernel("int8-dynamic", _pack_columns, _dynamic_node),
    "weight-only-int8": Kernel("int8-weights", _pack_blocks, _blocks_node),
}

TableFormat = Literal["float16", "int8-rows"]


def pack_table(name: str, table: Weight, form: TableFormat) -> dict[str, Weight]:
    """An embedding table [R, W] as float16, or as int8 with a scale per row."""
    if form == "float16":
        return {
            name: Weight(
                table.shape, np.dtype(np.float16), lambda: _floats(table).astype(np.float16)
            )
        }
    return {
        name: Weight(table.shape, np.dtype(np.int8), lambda: quantize_rows(_floats(table))[0]),
        name + SCALE: Weight(
            (table.shape[0],), np.dtype(np.float32), lambda: quantize_rows(_floats(table))[1]
        ),
    }


def _floats(weight: Weight) -> Floats:
    return cast("Floats", weight.load())
