"""Float graphs to integer graphs: the chosen matrix products are replaced, all else stays.

A layer is a MatMul or Gemm whose second factor is a stored float32 weight, and for a kernel that
computes them a Conv; its name is the weight's without `.weight`, as in `blocks.3.expand`. All
graphs of a ladder share one weight file before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto

from cosyvoice_cpu.export.graph import external_tensor
from cosyvoice_cpu.export.weights import StoredWeight, Weight
from cosyvoice_cpu.quantization.kernels import KERNELS, Form

WEIGHT = ".weight"
_PRODUCTS = ("MatMul", "Gemm")
_CONVOLUTION = "Conv"


def layers_of(graph: Path, *, convolutions: bool = False) -> dict[str, tuple[int, ...]]:
    """The layers of a graph file and the shapes of their weights, [K, N] or [out, in, kernel]."""
    model = onnx.load(str(graph), load_external_data=False)
    stored = _stored_shapes(model)
    return {
        node.input[1].removesuffix(WEIGHT): stored[node.input[1]]
        for node in model.graph.node
        if _is_layer(node, stored, convolutions)
    }


def rewrite_graph(
    source: Path,
    target: Path,
    layers: Mapping[str, Form],
    floats: Mapping[str, Weight],
    stored: Mapping[str, StoredWeight],
) -> None:
    """Write the graph `source` to `target` with the products of `layers` in their forms.

    `floats` are the weights that `source` reads, `stored` those that `target` shall read.
    """
    model = onnx.load(str(source), load_external_data=False)
    graph = model.graph
    outside = _stored_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        form = layers.get(name.removesuffix(WEIGHT))
        if form and _is_layer(node, outside, KERNELS[form.kernel].convolutions):
            bias = node.input[2] if len(node.input) > 2 else None
            nodes += KERNELS[form.kernel].nodes(node, name, floats[name].shape, bias, form)
        else:
            nodes.append(node)
    whole = onnx.GraphProto()
    whole.node.extend(nodes)  # copied before the originals go
    del graph.node[:]
    graph.node.extend(whole.node)
    used = {name for node in graph.node for name in node.input}
    inside = [
        tensor for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL
    ]
    del graph.initializer[:]
    graph.initializer.extend(inside)
    graph.initializer.extend(external_tensor(n, stored[n]) for n in sorted(used & stored.keys()))
    _shorten_names(graph)
    target.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(target))


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Number the values between nodes: a ladder's 66 graphs hold 2 MB of long names."""
    kept = {entry.name for entry in (*graph.input, *graph.output, *graph.initializer)}
    made = [name for node in graph.node for name in node.output if name and name not in kept]
    short = {name: f"v{number}" for number, name in enumerate(made)}
    for node in graph.node:
        node.input[:] = [short.get(name, name) for name in node.input]
        node.output[:] = [short.get(name, name) for name in node.output]
    del graph.value_info[:]  # it goes by the long names


def _is_layer(
    node: onnx.NodeProto, stored: Mapping[str, tuple[int, ...]], convolutions: bool
) -> bool:
    if node.domain or len(node.input) < 2:
        return False
    axes = len(stored.get(node.input[1], ()))
    if node.op_type == _CONVOLUTION:
        return convolutions and axes == 3
    plain = node.op_type == "MatMul" or not node.attribute  # a Gemm that transposes or scales
    return node.op_type in _PRODUCTS and plain and axes == 2


def _stored_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Of the stored float32 weights: what is float64, as in the f0 predictor, stays so."""
    return {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL and tensor.data_type == TensorProto.FLOAT
    }
