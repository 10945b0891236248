"""The trained speech tokenizer as `speech_tokenizer_v3.onnx`, with the official signature.

`feats` float32 [1, 128, T] and `feats_length` int32 [1] to `indices` int32 [1, N], N = ceil(ceil(T
/ 2) / 2). Quantizer, silent ids and their cycle are part of the graph. Large weights are stored as
int8 with a scale per output channel, a quarter of float32's size; the graph computes in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu.demo.training.sizes import LOG_MEL_BINS
from cosyvoice_cpu.demo.training.speech_tokenizer import LEVELS, ConvBlock, SpeechTokenizer
from cosyvoice_cpu.demo.training.token_ids import SILENT_IDS, IdTable

_OPSET, _IR_VERSION = 17, 8  # read by every supported onnxruntime
_NORM_EPS = 1e-5
_INT8_FROM = 1024  # elements; smaller tensors stay float32


class _Graph:
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

    def linear(self, x: str, layer: Any) -> str:
        """[1, N, C] through an nn.Linear."""
        weight = self.weight(_array(layer.weight).T.copy(), axis=1)
        return self.add("Add", self.add("MatMul", x, weight), self.constant(_array(layer.bias)))

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
            group=layer.groups,
        )

    def gelu(self, x: str) -> str:
        half, one = (self.constant(np.float32(v)) for v in (0.5, 1.0))
        turned = self.add("Erf", self.add("Mul", x, self.constant(np.float32(np.sqrt(0.5)))))
        return self.add("Mul", self.add("Mul", x, half), self.add("Add", turned, one))

    def norm(self, x: str, layer: Any) -> str:
        scale, bias = (self.constant(_array(p)) for p in (layer.weight, layer.bias))
        return self.add("LayerNormalization", x, scale, bias, axis=-1, epsilon=_NORM_EPS)

    def swap(self, x: str) -> str:
        return self.add("Transpose", x, perm=[0, 2, 1])

    def block(self, x: str, block: ConvBlock) -> str:
        h = self.swap(self.conv(self.swap(x), block.depthwise))
        h = self.gelu(self.linear(self.norm(h, block.norm), block.wide))
        return self.add("Add", x, self.linear(h, block.narrow))


def _array(value: Any) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.detach().numpy()
    return array


def save_tokenizer(network: SpeechTokenizer, table: IdTable, path: Path) -> None:
    """Write the tokenizer's encoder, quantizer and id table to `path`."""
    g = _Graph()
    length = g.add("Cast", "feats_length", to=TensorProto.INT64)
    zero, time_axis = g.constant(np.array([0])), g.constant(np.array([2]))
    x = g.add("Slice", "feats", zero, length, time_axis)
    x = g.gelu(g.conv(g.gelu(g.conv(x, network.first)), network.second))
    x = g.swap(x)
    for block in network.encoder:
        assert isinstance(block, ConvBlock)
        x = g.block(x, block)
    soft = g.add("Tanh", g.linear(g.norm(x, network.norm), network.down))
    digits = g.add("Add", g.add("Round", soft), g.constant(np.float32(1)))  # 0, 1, 2
    powers = (LEVELS ** np.arange(network.down.out_features)).astype(np.float32)[:, None]
    exact = g.add("MatMul", digits, g.constant(powers))  # [1, N, 1], integers below 2^24
    codes = g.add(
        "Squeeze", g.add("Cast", exact, to=TensorProto.INT64), g.constant(np.array([0, 2]))
    )
    silent = g.add("Gather", g.constant(table.silent), codes)  # [N]
    spoken_ids = g.add("Gather", g.constant(table.ids), codes)
    ids = g.add("Where", silent, _silent_ids(g, silent, codes), spoken_ids)
    narrow = g.add("Cast", ids, to=TensorProto.INT32)
    g.add("Unsqueeze", narrow, g.constant(np.array([0])), name="indices")
    _save(g, path)


def _silent_ids(g: _Graph, silent: str, codes: str) -> str:
    """For each token the id that it has if it is silent: by its place in the silence, [N]."""
    count = g.add("Squeeze", g.add("Shape", codes), g.constant(np.array([0])))
    index = g.add("Range", g.constant(np.int64(0)), count, g.constant(np.int64(1)))  # [N]
    before = g.constant(np.int64(-1))
    spoken_at = g.add("Where", silent, before, index)  # [N]
    row = g.add("Unsqueeze", index, g.constant(np.array([1])))  # [N, 1]
    column = g.add("Unsqueeze", index, g.constant(np.array([0])))  # [1, N]
    seen = g.add("Where", g.add("LessOrEqual", column, row), spoken_at, before)  # [N, N]
    last = g.add("ReduceMax", seen, axes=[1], keepdims=0)  # the last spoken token up to here
    place = g.add("Sub", g.add("Sub", index, last), g.constant(np.int64(1)))
    turn = g.add("Mod", place, g.constant(np.int64(len(SILENT_IDS))))
    # A spoken token has place -1; its result is not used, and Mod keeps it inside the list.
    return g.add("Gather", g.constant(np.array(SILENT_IDS)), turn)


def _save(g: _Graph, path: Path) -> None:
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, LOG_MEL_BINS, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "N"])]
    graph = helper.make_graph(g.nodes, "speech_tokenizer", inputs, outputs, g.weights)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    onnx.save(model, path)
