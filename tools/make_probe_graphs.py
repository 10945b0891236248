"""Writes the two graphs that the peak throughput of products is measured with.

    python -m tools.make_probe_graphs

A float32 MatMul and an INT8 DynamicQuantizeMatMul of the shapes of the flow's widest linear layer.
Their weights are declared as external data and filled in when a session is opened, so that the
files in `cosyvoice_cpu/evaluation/bench/data` have a few hundred bytes and `onnx` isn't needed.
"""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import TensorProto, helper

from cosyvoice_cpu.evaluation.bench.peak_throughput import PROBE_FOLDER, PROBE_SHAPE

_IR_VERSION, _OPSET = 8, 17


def float32_probe() -> onnx.ModelProto:
    """`y = x w` with constant w."""
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    return _model(node, [_external("w", TensorProto.FLOAT)])


def int8_probe() -> onnx.ModelProto:
    """The same with INT8 weights per column and activations quantized as they come."""
    node = helper.make_node(
        "DynamicQuantizeMatMul", ["x", "w", "scale"], ["y"], domain="com.microsoft"
    )
    columns = PROBE_SHAPE[2]
    scale = helper.make_tensor("one_scale", TensorProto.FLOAT, [1], [1 / 64])
    counted = helper.make_tensor("columns", TensorProto.INT64, [1], [columns])
    expand = helper.make_node("Expand", ["one_scale", "columns"], ["scale"])
    return _model([expand, node], [_external("w", TensorProto.INT8), scale, counted])


def _external(name: str, data_type: int) -> onnx.TensorProto:
    """A weight [inner, columns] that the file only declares."""
    tensor = TensorProto(name=name, data_type=data_type, dims=PROBE_SHAPE[1:])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="filled in when a session is opened")
    return tensor


def _model(
    nodes: onnx.NodeProto | list[onnx.NodeProto], initializers: list[onnx.TensorProto]
) -> onnx.ModelProto:
    rows, inner, columns = PROBE_SHAPE
    graph = helper.make_graph(
        nodes if isinstance(nodes, list) else [nodes],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [rows, inner])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, columns])],
        initializers,
    )
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, ir_version=_IR_VERSION, opset_imports=opsets)


def write_probes(folder: Path) -> None:
    """`matmul-float32.onnx` and `matmul-int8.onnx`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, model in (("float32", float32_probe()), ("int8", int8_probe())):
        (folder / f"matmul-{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    write_probes(PROBE_FOLDER)
