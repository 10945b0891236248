"""A traced graph as files: weights in the component's file, the length free or one of a ladder.

The files of a ladder differ in declared sizes alone. ONNX Runtime folds what follows from them, so
each size runs as a graph of static shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from cosyvoice_cpu.export.graph import external_tensor, half_cast
from cosyvoice_cpu.export.weights import StoredWeight
from cosyvoice_cpu.generations.components import ComponentSpec, GraphSpec, TensorSpec


def attach_weights(model: onnx.ModelProto, stored: Mapping[str, StoredWeight]) -> set[str]:
    """Point the initializers without data into the weight file, in place; returns their names.

    What is stored as float16 is cast, so that the graph computes in float32.
    """
    graph = model.graph
    tensors, nodes = list(graph.initializer), list(graph.node)
    names = [t.name for t in tensors if t.data_location == TensorProto.EXTERNAL]
    casts = [half_cast(name) for name in names if stored[name].dtype == np.float16]
    floats = {cast.input[0]: cast.output[0] for cast in casts}
    for node in nodes:
        node.input[:] = [floats.get(name, name) for name in node.input]
    whole = onnx.GraphProto()
    whole.node.extend([*casts, *nodes])  # copied before the originals go
    whole.initializer.extend(t for t in tensors if t.data_location != TensorProto.EXTERNAL)
    whole.initializer.extend(external_tensor(name, stored[name]) for name in names)
    del graph.initializer[:], graph.node[:]
    graph.MergeFrom(whole)
    return set(names)


def write_graphs(
    model: onnx.ModelProto,
    component: ComponentSpec,
    spec: GraphSpec,
    config: object,
    files: Mapping[int | None, Path],
) -> None:
    """Write the graph once for each of `files`, by the length that it is for; None: for any.

    `config` is the component's. Raises: onnx.checker.ValidationError on our bug.
    """
    graph, numbers = model.graph, component.numbers(config)
    inputs, outputs = component.tensors(spec, config)
    for length, path in files.items():
        sizes = dict(numbers)
        if length is not None and spec.ladder:
            sizes[spec.ladder.symbol] = length
        del graph.input[:], graph.output[:]
        graph.input.extend(_declared(inputs, sizes))
        graph.output.extend(_declared(outputs, sizes))
        path.write_bytes(model.SerializeToString(deterministic=True))
        onnx.checker.check_model(str(path))


def _declared(
    entries: tuple[TensorSpec, ...], sizes: Mapping[str, int]
) -> Iterator[onnx.ValueInfoProto]:
    for entry in entries:
        dtype = helper.np_dtype_to_tensor_dtype(np.dtype(entry.dtype))
        yield helper.make_tensor_value_info(entry.name, dtype, entry.resolved(sizes))
