"""A traced graph as it is kept: weights as they are stored, short names, no trace of a machine."""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping

import onnx

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.errors import ParityError
from cosyvoice_cpu.export.graph import IR_VERSION, opset_imports

_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's list of the modules around a node
# How torch's exporter writes a linear layer: x @ weight.T + bias.
_LINEAR = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}


def tidy(
    model: onnx.ModelProto,
    name: str,
    tensors: Collection[str],
    weights: Mapping[str, str],
    linear: Collection[str],
) -> None:
    """Rewrite what torch's exporter made, in place, as the graph `name`.

    `tensors`: names of its inputs and outputs. `weights`: stored names by the exporter's, of which
    those in `linear` become [in, out].
    Raises: ParityError if the graph reads the weight of a linear layer in another form.
    """
    model.ir_version = IR_VERSION
    model.producer_name, model.producer_version = "cosyvoice-cpu", __version__
    del model.opset_import[:]
    model.opset_import.extend(opset_imports())
    graph = model.graph
    graph.name = name
    _turn_weights(graph, linear)
    _rename(graph, tensors, weights)
    _drop_notes(model)


def _turn_weights(graph: onnx.GraphProto, linear: Collection[str]) -> None:
    weights = {tensor.name: tensor for tensor in graph.initializer if tensor.name in linear}
    for node in graph.node:
        if not weights.keys() & set(node.input):
            continue
        found = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        if node.op_type != "Gemm" or found != _LINEAR or node.input[1] not in weights:
            raise _unknown(f"{node.op_type} reads {', '.join(node.input)} with {found}")
        del node.attribute[:]  # now it is x @ weight + bias, the operator's default
        weight = weights.pop(node.input[1])
        weight.dims[:] = list(weight.dims)[::-1]
    if weights:
        raise _unknown(f"no product reads {min(weights)}")


def _rename(graph: onnx.GraphProto, tensors: Collection[str], weights: Mapping[str, str]) -> None:
    """Nodes by the module they come from, values by numbers: a ladder repeats them 66 times."""
    names = {name: name for name in tensors} | dict(weights)
    for tensor in graph.initializer:
        tensor.name = names.setdefault(tensor.name, f"c{len(names)}")
    scope = ""
    for number, node in enumerate(graph.node):
        scopes = [entry.value for entry in node.metadata_props if entry.key == _SCOPES]
        if scopes:  # modules, then the call; a node without them belongs to the last that had them
            scope = ["", *ast.literal_eval(scopes[0])][-2]
        node.name = f"{scope}/{node.op_type}_{number}".removeprefix("/")
        node.input[:] = [names[name] if name else "" for name in node.input]
        node.output[:] = [names.setdefault(name, f"v{len(names)}") for name in node.output]


def _drop_notes(model: onnx.ModelProto) -> None:
    """File names, versions and shapes of the trace; shapes follow anew from the inputs'."""
    graph = model.graph
    del model.metadata_props[:], graph.value_info[:]
    graph.doc_string = ""
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del entry.metadata_props[:]
        entry.doc_string = ""


def _unknown(what: str) -> ParityError:
    return ParityError(
        f"torch's exporter made another graph than expected: {what}",
        "install the versions of torch and onnxscript that constraints.txt names",
    )
