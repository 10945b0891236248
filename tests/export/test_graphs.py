"""What torch's exporter makes of the networks, pinned: another version may choose otherwise."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto
from support.networks_golden import CHECKPOINT, stages

from cosyvoice_cpu.errors import ParityError
from cosyvoice_cpu.export import trace
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.export.graph import MICROSOFT
from cosyvoice_cpu.export.tidy import tidy
from cosyvoice_cpu.networks.deployed.flow_encoder import FlowEncoder

COMPONENTS = stages().generation.components
DEPTH = stages().config.flow.estimator.depth
# 12 residual blocks of 3 dilations, each with two convolutions and two Snakes.
RESIDUALS = 2 * 3 * (3 + 9)
PRODUCTS = {
    "flow_encoder": {"Gemm": 1, "Conv": 2},
    "full": {"Gemm": 4 * DEPTH + 2, "Conv": 2},
    "chunked": {"Gemm": 4 * DEPTH + 2, "Conv": 2},
    "stream": {"Gemm": 4 * DEPTH + 2, "Conv": 2},
    "f0_predictor": {"Gemm": 6},
    "excitation": {"Gemm": 1},
    # Of the mel, three times up and three times down, of the spectrum; the STFT.
    "generator": {"Conv": RESIDUALS + 8 + 1, "ConvTranspose": 2},
}
FUSED = {"LayerNormalization": 2 * DEPTH + 1, "Gelu": DEPTH, "Mish": 2}
MICROSOFTS = {"MultiHeadAttention": DEPTH, "RotaryEmbedding": 2 * DEPTH}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("graphs") / "bundle"
    export_checkpoint(CHECKPOINT, path, max_seconds=6, front_end=False)
    return path


@cache
def graph(path: Path) -> onnx.GraphProto:
    return onnx.load(path, load_external_data=False).graph


def files(bundle: Path, variant: str) -> list[Path]:
    return sorted(bundle.glob(f"*/{variant}*.onnx"))


@pytest.mark.parametrize("variant", PRODUCTS)
def test_products_and_convolutions_are_as_many_as_the_network_has(
    bundle: Path, variant: str
) -> None:
    nodes = graph(files(bundle, variant)[0]).node
    heavy = ("Gemm", "MatMul", "Conv", "ConvTranspose", "Einsum")
    found = Counter(node.op_type for node in nodes if node.op_type in heavy)
    assert found == PRODUCTS[variant]


@pytest.mark.parametrize("variant", ["full", "chunked", "stream"])
def test_the_estimator_runs_on_the_fused_kernels(bundle: Path, variant: str) -> None:
    nodes = graph(files(bundle, variant)[0]).node
    found = Counter(node.op_type for node in nodes if not node.domain)
    assert {op: found[op] for op in FUSED} == FUSED
    assert Counter(node.op_type for node in nodes if node.domain == MICROSOFT) == MICROSOFTS
    for node in nodes:
        if node.op_type == "RotaryEmbedding":  # ids [B, T]; one offset is read as "all at 0"
            made = {output: other for other in nodes for output in other.output}
            ids = made[node.input[1]]
            if ids.op_type == "Slice":  # of keys: those of the valid frames
                ids = made[ids.input[0]]
            assert ids.op_type == "Expand"


@pytest.mark.parametrize("variant", PRODUCTS)
def test_no_graph_branches_or_rearranges_its_weights(bundle: Path, variant: str) -> None:
    content = graph(files(bundle, variant)[0])
    weights = {t.name for t in content.initializer if t.data_location == TensorProto.EXTERNAL}
    for node in content.node:
        assert node.op_type not in ("If", "Loop", "Scan"), node.name
        if node.op_type in ("Transpose", "Reshape", "Cast", "Identity"):
            assert not weights & set(node.input), node.name


def test_every_graph_may_get_fused_operators_later(bundle: Path) -> None:
    for path in bundle.glob("*/*.onnx"):
        imported = onnx.load(path, load_external_data=False).opset_import
        assert {entry.domain for entry in imported} == {"", MICROSOFT}, path.name


def test_graphs_hold_nothing_of_the_machine_that_made_them(bundle: Path) -> None:
    for path in bundle.glob("*/*.onnx"):
        content = path.read_bytes()
        assert b".py" not in content, path.name
        assert b"pkg." not in content, path.name


@pytest.mark.parametrize("variant", ["full", "chunked", "generator"])
def test_the_files_of_a_ladder_differ_in_declared_sizes_alone(bundle: Path, variant: str) -> None:
    first, *others = (graph(path) for path in files(bundle, variant))
    assert others
    for other in others:
        assert list(other.node) == list(first.node)
        assert list(other.initializer) == list(first.initializer)
        assert list(other.input) != list(first.input)
    for entry in (*first.input, *first.output):
        for dim in entry.type.tensor_type.shape.dim:
            assert dim.HasField("dim_value") or dim.dim_param == "rows"  # with guidance two


def test_a_second_trace_gives_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace, "_kept", {})
    monkeypatch.setattr(trace.trace_cache, "look_up", lambda key: None)
    spec = COMPONENTS["flow_encoder"]
    network = FlowEncoder.from_reference(stages().flow_encoder)
    first = trace.traced(spec, spec.graphs[0], network).SerializeToString(deterministic=True)
    trace._kept.clear()
    again = trace.traced(spec, spec.graphs[0], network).SerializeToString(deterministic=True)
    assert again == first


def test_a_linear_layer_in_an_unknown_form_is_refused_with_the_remedy() -> None:
    weight = onnx.helper.make_tensor("w", TensorProto.FLOAT, [2, 2], [0.0] * 4)
    node = onnx.helper.make_node("MatMul", ["tokens", "w"], ["mu"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [], [], [weight]))
    with pytest.raises(ParityError, match=r"MatMul reads tokens, w with \{\}") as caught:
        tidy(model, "g", {"tokens", "mu"}, {"w": "speaker.weight"}, {"w"})
    assert "constraints.txt" in caught.value.hint
