"""Small ONNX stand-ins for the speaker encoder and the speech tokenizer."""

from __future__ import annotations

from pathlib import Path

from onnx import TensorProto, helper, save

FLOAT, INT32, INT64 = TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64


def save_counting_tokenizer(
    path: Path,
    *,
    extra: int = 0,
    rank: int = 2,
    id_type: int = INT32,
    bins: int = 128,
    length_type: int = INT32,
    first: int = 0,
) -> Path:
    """Ids first, first + 1, ... of number ceil(T / 4) + extra, whatever the log-mel."""
    nodes = [
        helper.make_node("Shape", ["feats"], ["shape"], start=2, end=3),
        helper.make_node("Add", ["shape", "three"], ["padded"]),
        helper.make_node("Div", ["padded", "four"], ["quarter"]),
        helper.make_node("Add", ["quarter", "last"], ["end"]),
        helper.make_node("Squeeze", ["end"], ["end_scalar"]),
        helper.make_node("Range", ["start", "end_scalar", "step"], ["ids"]),
        helper.make_node("Cast", ["ids"], ["typed"], to=id_type),
        helper.make_node("Unsqueeze", ["typed", "axes"], ["indices"]),
    ]
    constants = [
        helper.make_tensor("three", INT64, [1], [3]),
        helper.make_tensor("four", INT64, [1], [4]),
        helper.make_tensor("last", INT64, [1], [extra + first]),
        helper.make_tensor("start", INT64, [], [first]),
        helper.make_tensor("step", INT64, [], [1]),
        helper.make_tensor("axes", INT64, [rank - 1], list(range(rank - 1))),
    ]
    inputs = [
        helper.make_tensor_value_info("feats", FLOAT, [1, bins, "T"]),
        helper.make_tensor_value_info("feats_length", length_type, [1]),
    ]
    shape = [1] * (rank - 1) + ["N"]
    outputs = [helper.make_tensor_value_info("indices", id_type, shape)]
    return _save(path, nodes, inputs, outputs, constants)


def save_mean_encoder(path: Path, *, width: int = 192, bins: int = 80, scale: float = 1.0) -> Path:
    """`width` values, `scale` times the largest bin's mean absolute value plus 0, 1, 2, ..."""
    nodes = [
        helper.make_node("Abs", ["input"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("Add", ["mean", "ramp"], ["shifted"]),
        helper.make_node("Mul", ["shifted", "scale"], ["row"]),
        helper.make_node("Reshape", ["row", "shape"], ["output"]),
    ]
    constants = [
        helper.make_tensor("ramp", FLOAT, [width], list(range(width))),
        helper.make_tensor("scale", FLOAT, [1], [scale]),
        helper.make_tensor("shape", INT64, [2], [1, width]),
    ]
    inputs = [helper.make_tensor_value_info("input", FLOAT, [1, "T", bins])]
    outputs = [helper.make_tensor_value_info("output", FLOAT, [1, width])]
    return _save(path, nodes, inputs, outputs, constants)


def _save(path: Path, nodes: list, inputs: list, outputs: list, constants: list) -> Path:
    graph = helper.make_graph(nodes, "stand_in", inputs, outputs, constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
