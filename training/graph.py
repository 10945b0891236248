"""Building the two front-end graphs node by node, large weights stored as int8.

An int8 weight has a scale per output channel and is a quarter of float32's size; the graph computes
in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

_OPSET, _IR_VERSION = 17, 8  # read by every supported onnxruntime
_INT8_FROM = 1024  # elements; smaller tensors stay float32


class Graph:
    """Collects nodes and weights; every method returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def add(self, op: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        output = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], **attributes))
        return output

    def constant(self, value: NDArray[Any] | np.generic) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def weight(self, value: NDArray[np.float32], axis: int) -> str:
        """A float32 tensor; a large one as int8, scaled by the largest value along `axis`'
        channels.
        """
        if value.size < _INT8_FROM:
            return self.constant(value)
        others = tuple(i for i in range(value.ndim) if i != axis)
        scale = np.abs(value).max(others) / 127
        shape = [-1 if i == axis else 1 for i in range(value.ndim)]
        stored = np.round(value / scale.reshape(shape)).astype(np.int8)
        return self.add(
            "DequantizeLinear",
            self.constant(stored),
            self.constant(scale.astype(np.float32)),
            self.constant(np.zeros(len(scale), np.int8)),
            axis=axis,
        )

    def linear(self, x: str, layer: Any, name: str | None = None) -> str:
        """[1, N, C] through an nn.Linear."""
        weight = self.weight(_array(layer.weight).T.copy(), axis=1)
        product = self.add("MatMul", x, weight)
        return self.add("Add", product, self.constant(_array(layer.bias)), name=name)

    def conv(self, x: str, layer: Any) -> str:
        """[1, C, N] through an nn.Conv1d."""
        pad = layer.padding[0]
        return self.add(
            "Conv",
            x,
            self.weight(_array(layer.weight), axis=0),
            self.constant(_array(layer.bias)),
            strides=list(layer.stride),
            pads=[pad, pad],
            dilations=list(layer.dilation),
            group=layer.groups,
        )

    def gelu(self, x: str) -> str:
        half, one = (self.constant(np.float32(v)) for v in (0.5, 1.0))
        turned = self.add("Erf", self.add("Mul", x, self.constant(np.float32(np.sqrt(0.5)))))
        return self.add("Mul", self.add("Mul", x, half), self.add("Add", turned, one))

    def norm(self, x: str, layer: Any) -> str:
        scale, bias = (self.constant(_array(p)) for p in (layer.weight, layer.bias))
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=layer.eps)

    def swap(self, x: str) -> str:
        return self.add("Transpose", x, perm=[0, 2, 1])

    def save(
        self,
        path: Path,
        name: str,
        inputs: list[onnx.ValueInfoProto],
        outputs: list[onnx.ValueInfoProto],
    ) -> None:
        """Check the graph and write it."""
        graph = helper.make_graph(self.nodes, name, inputs, outputs, self.weights)
        opsets = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
        onnx.checker.check_model(model)
        onnx.save(model, path)


def _array(value: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.detach().numpy()
    return array
