"""INT8 with fixed activation ranges: the layers that a calibration looked at, for ONNX Runtime.

A product is two nodes: `QuantizeLinear` with the calibrated scale and zero point, and
`MatMulIntegerToFloat`, which multiplies uint8 by int8 and scales each output channel in one go. Its
result is float32: quantizing outputs as well would round twice what the next float operation reads.
A convolution is `ConvInteger` and what makes floats of its sums.

`bundle.integer_weights` says how this is stored.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.integer_weights import INPUT_SCALE, INPUT_ZERO_POINT, SCALE
from cosyvoice_cpu.export.graph import MICROSOFT
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.kernels.integers import quantize_by
from cosyvoice_cpu.quantization.kernels.parameters import LayerParameters

_CONVOLUTION_AXES = 3  # [out, in, kernel]; a product's weight is [in, out]


def pack_static(name: str, weight: Weight, parameters: LayerParameters | None) -> dict[str, Weight]:
    """The weight as int8 with a scale per output channel, and the range of what enters.

    Without `parameters` the shapes are right but nothing can be loaded.
    """
    convolution = len(weight.shape) == _CONVOLUTION_AXES
    channels = weight.shape[0 if convolution else 1]

    def known() -> LayerParameters:
        if parameters is None:
            raise ValueError(f"{name} was not calibrated")
        return parameters

    def integers() -> NDArray[np.int8]:
        scale = known().weight_scale
        floats = cast("Floats", weight.load())
        return quantize_by(floats, scale[:, None, None] if convolution else scale)

    return {
        name: Weight(weight.shape, np.dtype(np.int8), integers),
        name + SCALE: Weight((channels,), np.dtype(np.float32), lambda: known().weight_scale),
        name + INPUT_SCALE: Weight(
            (), np.dtype(np.float32), lambda: np.array(known().scale, np.float32)
        ),
        name + INPUT_ZERO_POINT: Weight(
            (), np.dtype(np.uint8), lambda: np.array(known().zero_point, np.uint8)
        ),
    }


def static_nodes(
    node: onnx.NodeProto, weight: str, shape: tuple[int, ...], bias: str | None
) -> list[onnx.NodeProto]:
    """The nodes for a product or a convolution."""
    integers = f"{node.name}/input"
    quantize = helper.make_node(
        "QuantizeLinear",
        [node.input[0], weight + INPUT_SCALE, weight + INPUT_ZERO_POINT],
        [integers],
        name=f"{node.name}/quantize",
    )
    if len(shape) == _CONVOLUTION_AXES:
        return [quantize, *_convolution(node, integers, weight, bias)]
    product = helper.make_node(
        "MatMulIntegerToFloat",
        [
            *(integers, weight, weight + INPUT_SCALE, weight + SCALE, weight + INPUT_ZERO_POINT),
            *(["", bias] if bias else []),
        ],
        list(node.output),
        name=node.name,
        domain=MICROSOFT,
    )
    return [quantize, product]


def _convolution(
    node: onnx.NodeProto, integers: str, weight: str, bias: str | None
) -> list[onnx.NodeProto]:
    """Integer sums times input scale and channel scale, plus bias; [1, out, T]."""
    nodes: list[onnx.NodeProto] = []

    def add(op: str, inputs: list[str], output: str, **attributes: object) -> str:
        nodes.append(helper.make_node(op, inputs, [output], name=f"{node.name}/{op}_{len(nodes)}"))
        nodes[-1].attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        return output

    name = node.name
    sums = add("ConvInteger", [integers, weight, weight + INPUT_ZERO_POINT], f"{name}/sums")
    nodes[-1].attribute.extend(node.attribute)
    floats = add("Cast", [sums], f"{name}/floats", to=TensorProto.FLOAT)
    column = add("Constant", [], f"{name}/column", value_ints=[1])
    channels = add("Unsqueeze", [weight + SCALE, column], f"{name}/channels")
    scale = add("Mul", [channels, weight + INPUT_SCALE], f"{name}/scale")
    if bias is None:
        add("Mul", [floats, scale], node.output[0])
        return nodes
    scaled = add("Mul", [floats, scale], f"{name}/scaled")
    offset = add("Unsqueeze", [bias, column], f"{name}/bias")
    add("Add", [scaled, offset], node.output[0])
    return nodes
