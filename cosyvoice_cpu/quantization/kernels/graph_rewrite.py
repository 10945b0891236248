"""Float graphs to integer graphs: the chosen matrix products are replaced, all else stays.

A layer is a MatMul or Gemm whose second factor is a stored float32 weight, and for a kernel that
computes them a Conv; its name is the weight's without `.weight`, as in `blocks.3.expand`. All
graphs of a ladder share one weight file before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from cosyvoice_cpu.export.graph import external_tensor
from cosyvoice_cpu.export.weights import StoredWeight, Weight
from cosyvoice_cpu.quantization.kernels.variants import KERNELS, KernelVariant

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
    variants: Mapping[str, KernelVariant],
    stored: Mapping[str, StoredWeight],
) -> None:
    """Write the graph `source` to `target` with the layers of `variants` in integers.

    `stored` are the weights that `target` shall read, in its own folder.
    """
    model = onnx.load(str(source), load_external_data=False)
    quantize_products(model, variants)
    graph = model.graph
    used = {name for node in graph.node for name in node.input}
    inside = [
        tensor for tensor in graph.initializer if tensor.data_location != TensorProto.EXTERNAL
    ]
    outside = [external_tensor(name, stored[name]) for name in sorted(used & stored.keys())]
    _set_initializers(graph, [*inside, *outside])
    _shorten_names(graph)
    target.write_bytes(model.SerializeToString())
    onnx.checker.check_model(str(target))


def quantize_products(model: onnx.ModelProto, variants: Mapping[str, KernelVariant]) -> None:
    """Replace the nodes of the layers in `variants`; their packed weights are the caller's."""
    shapes = _stored_shapes(model)
    changed = onnx.GraphProto()
    for node in model.graph.node:
        name = node.input[1] if len(node.input) > 1 else ""
        variant = variants.get(name.removesuffix(WEIGHT))
        if variant and _is_layer(node, shapes, KERNELS[variant.kernel].convolutions):
            bias = node.input[2] if len(node.input) > 2 else None
            changed.node.extend(
                KERNELS[variant.kernel].nodes(node, name, shapes[name], bias, variant)
            )
        else:
            changed.node.append(node)
    del model.graph.node[:]
    model.graph.node.extend(changed.node)


def embed_weights(model: onnx.ModelProto, weights: Mapping[str, Weight]) -> None:
    """Put `weights` into the model itself, in place of stored ones of the same names."""
    graph = model.graph
    others = [tensor for tensor in graph.initializer if tensor.name not in weights]
    inside = [
        numpy_helper.from_array(np.ascontiguousarray(weight.load()), name)
        for name, weight in weights.items()
    ]
    _set_initializers(graph, [*others, *inside])


def _set_initializers(graph: onnx.GraphProto, tensors: Iterable[onnx.TensorProto]) -> None:
    changed = onnx.GraphProto()
    changed.initializer.extend(tensors)  # copied before the originals go
    del graph.initializer[:]
    graph.initializer.extend(changed.initializer)


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
