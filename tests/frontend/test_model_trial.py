"""Foreign ONNX models: looked at before they are opened, and within limits when they first run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.front_end_graphs import save_counting_tokenizer, save_mean_encoder

from cosyvoice_cpu.bundle.onnx_operators import ForeignGraphError, require_plain_graph
from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend import model_trial
from cosyvoice_cpu.frontend.model_trial import try_models
from cosyvoice_cpu.frontend.onnx_models import FrontEndModels

Edit = Callable[[onnx.ModelProto], Any]


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return save_mean_encoder(tmp_path / "encoder.onnx")


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    return save_counting_tokenizer(tmp_path / "tokenizer.onnx")


def edited(path: Path, edit: Edit) -> Path:
    model = onnx.load(path)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def loop_body() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Identity", ["going"], ["still_going"]),
        helper.make_node("Add", ["state", "state"], ["next"]),
    ]
    value = helper.make_tensor_value_info
    inputs = [value("i", TensorProto.INT64, []), value("going", TensorProto.BOOL, [])]
    inputs.append(value("state", TensorProto.FLOAT, [1]))
    outputs = [value("still_going", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, [1])]
    return helper.make_graph(nodes, "body", inputs, outputs)


def add_loop(model: onnx.ModelProto) -> None:
    """2^62 rounds of constants: computed while the model loads."""
    graph = model.graph
    graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [2**62]))
    graph.initializer.append(helper.make_tensor("going", TensorProto.BOOL, [], [True]))
    graph.initializer.append(helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    graph.node.append(
        helper.make_node("Loop", ["rounds", "going", "zero"], ["end"], body=loop_body())
    )


def add_loop_in_a_branch(model: onnx.ModelProto) -> None:
    inner = onnx.ModelProto()
    add_loop(inner)
    graph = helper.make_graph(
        list(inner.graph.node), "b", [], [helper.make_tensor_value_info("end", 1, [1])]
    )
    model.graph.node.append(
        helper.make_node("If", ["going"], ["x"], then_branch=graph, else_branch=graph)
    )


def add_doubling_functions(model: onnx.ModelProto) -> None:
    """Each function calls the one before it twice: 2^24 nodes once they are inlined."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    model.opset_import.append(helper.make_opsetid("f", 1))
    for level in range(24):
        call = ("Identity", "") if level == 0 else (f"f{level - 1}", "f")
        nodes = [
            helper.make_node(call[0], ["a"], ["b"], domain=call[1]),
            helper.make_node(call[0], ["b"], ["c"], domain=call[1]),
        ]
        model.functions.append(helper.make_function("f", f"f{level}", ["a"], ["c"], nodes, opset))


def add_unknown_domain(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Anything", ["input"], ["y"], domain="com.example"))


def add_many_nodes(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["input"], ["y"])
    model.graph.node.extend([node] * 100_001)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (add_loop, "has the operator Loop"),
        (add_loop_in_a_branch, "has the operator Loop"),
        (add_doubling_functions, "has functions of its own"),
        (add_unknown_domain, "unknown domain 'com.example'"),
        (add_many_nodes, "has over 100000 nodes"),
    ],
)
def test_what_no_official_model_has_is_refused_before_an_engine_opens_it(
    encoder: Path, tokenizer: Path, edit: Edit, message: str
) -> None:
    edited(encoder, edit)
    started = time.monotonic()
    with pytest.raises(SpeakerError, match=message) as refused:
        FrontEndModels(encoder, tokenizer)
    assert refused.value.what.startswith(str(encoder))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07", b"\xff" * 100])
def test_what_is_no_model_is_refused_before_an_engine_opens_it(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ForeignGraphError):
        require_plain_graph(path)


def test_good_models_pass_their_trial(encoder: Path, tokenizer: Path) -> None:
    try_models(encoder, tokenizer)


def add_large_constant(model: onnx.ModelProto) -> None:
    """40 GB of zeros in a few bytes, made while the model loads."""
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [10**10])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["zeros"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0))
    (last,) = [node for node in model.graph.node if "output" in node.output]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "sum"], ["output"]))


def add_doubling_nodes(model: onnx.ModelProto) -> None:
    """Each node joins the one before it to itself: 2^40 times what goes in."""
    name = "input"
    for level in range(40):
        model.graph.node.append(helper.make_node("Concat", [name, name], [f"d{level}"], axis=1))
        name = f"d{level}"
    model.graph.node.append(helper.make_node("ReduceSum", [name], ["sum"], keepdims=0))
    (last,) = [node for node in model.graph.node if "output" in node.output]
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Add", ["before", "sum"], ["output"]))


@pytest.mark.parametrize("edit", [add_large_constant, add_doubling_nodes])
def test_a_model_without_measure_ends_its_trial_and_nothing_else(
    encoder: Path, tokenizer: Path, edit: Edit
) -> None:
    edited(encoder, edit)
    with pytest.raises(SpeakerError) as refused:
        try_models(encoder, tokenizer)
    assert str(encoder) in refused.value.what


def test_a_model_that_does_not_end_is_stopped(
    encoder: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_trial, "SECONDS", 0.01)
    with pytest.raises(SpeakerError, match=r"did not end within 0\.01 s"):
        try_models(encoder, tokenizer)


def test_a_model_that_gives_no_numbers_fails_its_trial(tokenizer: Path, tmp_path: Path) -> None:
    encoder = save_mean_encoder(tmp_path / "encoder.onnx", scale=float(np.inf))
    with pytest.raises(SpeakerError, match="not finite"):
        try_models(encoder, tokenizer)
