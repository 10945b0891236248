"""Float graphs to integer graphs: the chosen matrix products are replaced, all else stays.

A layer is a MatMul or Gemm whose second factor is a stored weight; its name is the weight's without
`.weight`, as in `blocks.3.expand`. All graphs of a ladder share one weight file before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import onnx

from cosyvoice_cpu.export.graph import external_tensor
from cosyvoice_cpu.export.weights import StoredWeight, Weight
from cosyvoice_cpu.quantization.kernels import KERNELS, Form

WEIGHT = ".weight"
_PRODUCTS = ("MatMul", "Gemm")


def layers_of(graph: Path) -> dict[str, tuple[int, ...]]:
    """The layers of a graph file and the shapes [K, N] of their weights."""
    model = onnx.load(str(graph), load_external_data=False)
    stored = _stored_shapes(model)
    return {
        node.input[1].removesuffix(WEIGHT): stored[node.input[1]]
        for node in model.graph.node
        if _is_layer(node, stored)
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
    for index, node in enumerate(graph.node):
        name = node.input[1] if len(node.input) > 1 else ""
        if _is_layer(node, outside) and name.removesuffix(WEIGHT) in layers:
            bias = node.input[2] if len(node.input) > 2 else None
            form = layers[name.removesuffix(WEIGHT)]
            integer = KERNELS[form.kernel].node(node, name, floats[name].shape, bias, form)
            graph.node[index].CopyFrom(integer)
    used = {name for node in graph.node for name in node.input}
    inside = [tensor for tensor in graph.initializer if tensor.name not in outside]
    del graph.initializer[:]
    graph.initializer.extend(inside)
    graph.initializer.extend(external_tensor(n, stored[n]) for n in sorted(used & stored.keys()))
    target.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(target))


def _is_layer(node: onnx.NodeProto, stored: Mapping[str, tuple[int, ...]]) -> bool:
    plain = node.op_type == "MatMul" or not node.attribute  # a Gemm that transposes or scales
    return (
        node.domain == ""
        and node.op_type in _PRODUCTS
        and plain
        and len(stored.get(node.input[1], ())) == 2
    )


def _stored_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {
        tensor.name: tuple(tensor.dims)
        for tensor in model.graph.initializer
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }
