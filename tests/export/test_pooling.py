"""The speaker encoder pools as the original's does, on every version of ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu.errors import CheckpointError
from cosyvoice_cpu.export.pooling import RULE, RULE_KEY, copy_with_one_pooling_rule

CHANNELS, SEGMENT, WIDTH = 16, 100, 192


def pooling_model(opset: int = 11, **attributes) -> onnx.ModelProto:
    """One AveragePool over [1, C, T]."""
    node = helper.make_node("AveragePool", ["x"], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "pool",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, None, *["T"]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def encoder_model() -> onnx.ModelProto:
    """CAM++ in small: a layer, its context of segments as the official file pools them, statistics.

    Source: 3D-Speaker speakerlab/models/campplus/layers.py, `CAMLayer.seg_pooling`, as exported.
    """
    random = np.random.default_rng(0)
    weights = {
        "w1": random.normal(0, 80**-0.5, (80, CHANNELS)),
        "w2": random.normal(0, CHANNELS**-0.5, (2 * CHANNELS, WIDTH)),
        "end": np.array([2]),
        "start": np.array([0]),
        "big": np.array([2**31]),
        "axis": np.array([2]),
        "segment": np.array([1, 1, 1, SEGMENT]),
        "joined": np.array([1, CHANNELS, -1]),
        "none": np.array([0]),
    }
    initializers = [
        numpy_helper.from_array(
            value.astype(np.float32 if value.dtype.kind == "f" else np.int64), name
        )
        for name, value in weights.items()
    ]
    make = helper.make_node
    pool = {"kernel_shape": [SEGMENT], "strides": [SEGMENT], "ceil_mode": 1}
    nodes = [
        make("MatMul", ["input", "w1"], ["mixed"]),
        make("Transpose", ["mixed"], ["x"], perm=[0, 2, 1]),
        make("AveragePool", ["x"], ["pooled"], count_include_pad=1, **pool),
        make("Unsqueeze", ["pooled"], ["column"], axes=[3]),
        make("Expand", ["column", "segment"], ["spread"]),
        make("Reshape", ["spread", "joined"], ["long"]),
        make("Shape", ["x"], ["shape"]),
        make("Slice", ["shape", "axis", "big", "none"], ["length"]),
        make("Slice", ["long", "start", "length", "axis"], ["context"]),
        make("Sigmoid", ["context"], ["gate"]),
        make("Mul", ["x", "gate"], ["gated"]),
        make("ReduceMean", ["gated"], ["mean"], axes=[2], keepdims=0),
        make("ReduceL2", ["gated"], ["spread2"], axes=[2], keepdims=0),
        make("Concat", ["mean", "spread2"], ["statistics"], axis=1),
        make("MatMul", ["statistics", "w2"], ["output"]),
    ]
    graph = helper.make_graph(
        nodes,
        "campplus",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, "T", 80])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, WIDTH])],
        initializers,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)


def expected_embedding(model: onnx.ModelProto, features: np.ndarray) -> np.ndarray:
    """The same in NumPy, with the rule of ONNX Runtime up to 1.28."""
    weights = {entry.name: numpy_helper.to_array(entry) for entry in model.graph.initializer}
    x = (features @ weights["w1"])[0].T.astype(np.float64)
    length = x.shape[1]
    whole = np.pad(x, ((0, 0), (0, -length % SEGMENT)))
    pooled = whole.reshape(CHANNELS, -1, SEGMENT).sum(axis=2) / SEGMENT
    context = np.repeat(pooled, SEGMENT, axis=1)[:, :length]
    gated = x / (1 + np.exp(-context))
    statistics = np.concatenate([gated.mean(axis=1), np.linalg.norm(gated, axis=1)])
    return statistics @ weights["w2"]


def mended(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, str(folder / "given.onnx"))
    copy_with_one_pooling_rule(folder / "given.onnx", folder / "mended.onnx")
    return folder / "mended.onnx"


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def test_the_last_segment_is_divided_by_the_whole_kernel(tmp_path: Path) -> None:
    attributes = {"kernel_shape": [100], "strides": [100], "ceil_mode": 1, "count_include_pad": 1}
    pool = session(mended(pooling_model(**attributes), tmp_path))
    assert pool.run(None, {"x": np.ones((1, 1, 150), np.float32)})[0].tolist() == [[[1.0, 0.5]]]


@pytest.mark.parametrize("frames", [1, 99, 100, 101, 150, 298, 300, 997])
def test_the_embedding_is_that_of_the_original_s_rule(tmp_path: Path, frames: int) -> None:
    model = encoder_model()
    features = np.random.default_rng(frames).normal(0, 1, (1, frames, 80)).astype(np.float32)
    expected = expected_embedding(model, features)
    [embedding] = session(mended(model, tmp_path)).run(None, {"input": features})
    assert np.abs(embedding[0] - expected).max() < 1e-5 * np.abs(expected).max()


@settings(max_examples=40)
@given(
    length=st.integers(1, 60),
    kernel=st.integers(1, 12),
    stride=st.integers(1, 12),
    pads=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    dilation=st.integers(1, 3),
)
def test_every_window_is_divided_by_the_whole_kernel(
    tmp_path_factory, length: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int
) -> None:
    pads = (min(pads[0], kernel - 1), min(pads[1], kernel - 1))
    attributes = {"kernel_shape": [kernel], "strides": [stride], "pads": list(pads)}
    attributes |= {"dilations": [dilation]} if dilation > 1 else {}
    model = pooling_model(
        19 if dilation > 1 else 11, ceil_mode=1, count_include_pad=1, **attributes
    )
    pool = session(mended(model, tmp_path_factory.mktemp("pool")))
    x = np.random.default_rng(0).normal(0, 1, length).astype(np.float32)
    window = (kernel - 1) * dilation + 1
    padded = np.pad(x, pads)
    count = max(0, -((window - len(padded)) // stride)) + 1
    whole = np.pad(padded, (0, max(0, (count - 1) * stride + window - len(padded))))
    expected = [
        whole[start : start + window : dilation].sum() / kernel
        for start in range(0, count * stride, stride)
    ]
    [found] = pool.run(None, {"x": x[None, None]})
    assert np.allclose(found[0, 0], expected, atol=1e-5)


def test_the_rule_stands_in_the_graph_and_no_node_of_the_old_kind_is_left(tmp_path: Path) -> None:
    model = onnx.load(str(mended(encoder_model(), tmp_path)))
    onnx.checker.check_model(model)
    assert {entry.key: entry.value for entry in model.metadata_props} == {RULE_KEY: RULE}
    [pool] = [node for node in model.graph.node if node.op_type == "AveragePool"]
    assert {entry.name for entry in pool.attribute} == {"kernel_shape", "strides"}


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [4], "strides": [4]},
        {"kernel_shape": [4], "strides": [4], "ceil_mode": 1},
        {"kernel_shape": [4], "strides": [4], "count_include_pad": 1},
    ],
)
def test_a_model_whose_pooling_is_the_same_everywhere_is_copied_byte_for_byte(
    tmp_path: Path, attributes
) -> None:
    path = mended(pooling_model(**attributes), tmp_path)
    assert path.read_bytes() == (tmp_path / "given.onnx").read_bytes()


def test_a_model_too_old_to_be_mended_is_refused(tmp_path: Path) -> None:
    attributes = {"kernel_shape": [4], "strides": [4], "ceil_mode": 1, "count_include_pad": 1}
    with pytest.raises(CheckpointError, match="has opset 10; 11 is needed"):
        mended(pooling_model(10, **attributes), tmp_path)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"not a model")
    with pytest.raises(CheckpointError, match="is no ONNX model"):
        copy_with_one_pooling_rule(tmp_path / "a.onnx", tmp_path / "b.onnx")
