"""One pooling rule for the speaker encoder, whatever the version of ONNX Runtime.

`AveragePool` with ceil_mode and count_include_pad divides a last, incomplete window by the whole
kernel up to ONNX Runtime 1.28, and by what the window holds from 1.29 on (its issue 29629). The
official campplus.onnx pools segments of 100 frames like this, and the original runs it with an old
version, so the old rule is the original's. Here it is written out: zeros up to a whole window, and
a plain pooling, which all versions compute alike.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cosyvoice_cpu.errors import CheckpointError

if TYPE_CHECKING:
    import onnx

RULE_KEY = "pooling_rule"  # of the graph's metadata
RULE = "incomplete windows are filled with zeros and divided by the whole kernel"
_OLDEST_OPSET = 11  # the first whose Pad takes computed amounts


def copy_with_one_pooling_rule(source: Path, target: Path) -> None:
    """Copy an ONNX model; one whose pooling depends on the version gets the original's rule.

    Models without such nodes are copied byte for byte. Raises: CheckpointError for a model that
    can't be read or is older than opset 11.
    """
    import onnx

    try:
        model = onnx.load(str(source))
    except Exception as error:  # protobuf's and onnx's have no common class
        raise CheckpointError(f"{source} is no ONNX model", "download the file again") from error
    if not write_out_pooling(model):
        shutil.copyfile(source, target)
        return
    opset = next((entry.version for entry in model.opset_import if not entry.domain), 0)
    if opset < _OLDEST_OPSET:
        raise CheckpointError(
            f"{source} pools in a way that differs between versions of ONNX Runtime, and has opset"
            f" {opset}; {_OLDEST_OPSET} is needed to mend it",
            "give the official file",
        )
    onnx.helper.set_model_props(
        model, {entry.key: entry.value for entry in model.metadata_props} | {RULE_KEY: RULE}
    )
    onnx.save(model, str(target))


def write_out_pooling(model: onnx.ModelProto) -> int:
    """Rewrite the nodes whose result depends on the version, in place; their number."""
    graph = model.graph
    nodes: list[Any] = []
    count = 0
    for node in graph.node:
        if _depends_on_version(node):
            nodes += _written_out(graph, node, f"{node.name or 'pool'}_{count}")
            count += 1
        else:
            nodes.append(node)
    if count:
        del graph.node[:]
        graph.node.extend(nodes)
    return count


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    from onnx.helper import get_attribute_value

    return {entry.name: get_attribute_value(entry) for entry in node.attribute}


def _depends_on_version(node: onnx.NodeProto) -> bool:
    if node.op_type != "AveragePool" or node.domain:
        return False
    found = _attributes(node)
    padded_itself = found.get("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")
    rounds_up = found.get("ceil_mode", 0) == 1 and found.get("count_include_pad", 0) == 1
    return rounds_up and not padded_itself


def _written_out(graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> list[onnx.NodeProto]:
    """Zeros so that the last window is whole, then the pooling without rounding up."""
    from onnx import helper, numpy_helper

    found = _attributes(node)
    kernel = np.asarray(found["kernel_shape"], np.int64)
    axes = len(kernel)
    strides = np.asarray(found.get("strides", [1] * axes), np.int64)
    dilations = np.asarray(found.get("dilations", [1] * axes), np.int64)
    before, behind = np.asarray(found.get("pads", [0] * 2 * axes), np.int64).reshape(2, axes)
    window = (kernel - 1) * dilations + 1
    constants = {
        "first": [2],
        "last": [2 + axes],
        "zero": np.zeros(axes),
        "padding_less_window": before + behind - window,
        "strides": strides,
        "strides_less_1": strides - 1,
        "window_less_before": window - before,
        "in_front": [0, 0, *before],
        "no_axes": [0, 0],
    }
    for key, value in constants.items():
        array = np.asarray(value, np.int64)
        graph.initializer.append(numpy_helper.from_array(array, f"{name}/{key}"))

    def make(operator: str, inputs: str, output: str) -> onnx.NodeProto:
        names = [node.input[0] if part == "x" else f"{name}/{part}" for part in inputs.split()]
        return helper.make_node(operator, names, [f"{name}/{output}"], f"{name}/{output}")

    concat = make("Concat", "in_front no_axes end", "pads")
    concat.attribute.append(helper.make_attribute("axis", 0))
    pool = helper.make_node("AveragePool", [f"{name}/padded"], list(node.output), node.name)
    kept = {key: found[key] for key in ("kernel_shape", "strides", "dilations") if key in found}
    pool.attribute.extend(helper.make_attribute(key, value) for key, value in kept.items())
    return [
        make("Shape", "x", "shape"),
        make("Slice", "shape first last", "length"),
        # Windows beside the first: ceil((length + padding - window) / stride), at least 0.
        make("Add", "length padding_less_window", "signed_rest"),
        make("Less", "signed_rest zero", "fits_not"),
        make("Where", "fits_not zero signed_rest", "rest"),
        make("Add", "rest strides_less_1", "rounded"),
        make("Div", "rounded strides", "further"),
        make("Mul", "further strides", "last_start"),
        # Zeros behind: up to the end of the last window.
        make("Add", "last_start window_less_before", "needed"),
        make("Sub", "needed length", "end"),
        concat,
        make("Pad", "x pads", "padded"),
        pool,
    ]
