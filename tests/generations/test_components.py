"""The component table against the graphs that an export writes, and against the networks."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.generations import GENERATIONS, ComponentSpec, TensorSpec, generation_named
from cosyvoice_cpu.generations.components import WEIGHTS_FILE

COMPONENTS = generation_named("cosyvoice3").components
ONNX_TYPES = {
    "float16": "tensor(float16)",
    "float32": "tensor(float)",
    "float64": "tensor(double)",
    "int32": "tensor(int32)",
    "int64": "tensor(int64)",
}


@pytest.mark.parametrize("spec", COMPONENTS.values(), ids=list(COMPONENTS))
def test_every_graph_of_a_bundle_takes_and_gives_what_the_table_says(
    spec: ComponentSpec, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    config = spec.config_of(open_checkpoint(tiny_checkpoint).config)
    entries = open_bundle(tiny_bundle).component(spec.name).files
    files = {entry.path.split("/")[1] for entry in entries} - {WEIGHTS_FILE}
    assert {spec.graph_of_file(file) for file in files} == set(spec.graphs)
    for file in files:
        graph = spec.graph_of_file(file)
        assert graph is not None
        session = onnxruntime.InferenceSession(str(tiny_bundle / spec.name / file))
        sizes = spec.numbers(config)
        if graph.ladder:
            sizes[graph.ladder.symbol] = int(file.removesuffix(".onnx").rpartition("-")[2])
        caches = [
            cache.tensors(layer)
            for cache in graph.caches
            for layer in range(spec.layer_count(config))
        ]
        for specs, found in (
            ([*graph.inputs, *(past for past, _ in caches)], session.get_inputs()),
            (
                [*graph.outputs, *(present for _, present in caches if present)],
                session.get_outputs(),
            ),
        ):
            assert {tensor.name for tensor in specs} == {tensor.name for tensor in found}
            by_name = {tensor.name: tensor for tensor in found}
            for tensor in specs:
                assert by_name[tensor.name].type == ONNX_TYPES[tensor.dtype]
                _assert_same_shape(tensor, by_name[tensor.name].shape, sizes)


def _assert_same_shape(tensor: TensorSpec, found: list[int | str], sizes: dict[str, int]) -> None:
    resolved = tensor.resolved(sizes)
    assert len(resolved) == len(found), tensor
    for said, got in zip(resolved, found, strict=True):
        assert isinstance(said, str) == isinstance(got, str), tensor
        assert isinstance(said, str) or said == got, tensor


@pytest.mark.parametrize("generation", GENERATIONS.values(), ids=list(GENERATIONS))
def test_a_name_stands_once_in_a_graph_and_a_prefix_once_in_a_file(generation) -> None:
    specs = generation.components.values()
    places = [(spec.checkpoint_part, spec.key_prefix) for spec in specs]
    assert len(set(places)) == len(places)
    for spec in specs:
        for graph in spec.graphs:
            names = [tensor.name for tensor in graph.inputs]
            assert len(set(names)) == len(names)


@pytest.mark.parametrize("spec", COMPONENTS.values(), ids=list(COMPONENTS))
def test_both_networks_are_found_by_their_names(spec: ComponentSpec) -> None:
    torch = pytest.importorskip("torch")
    assert issubclass(spec.reference_class(), torch.nn.Module)
    assert issubclass(spec.deployed_class(), torch.nn.Module)


def test_a_feed_has_the_tables_names_and_types_and_refuses_another_rank() -> None:
    graph = COMPONENTS["flow_encoder"].graph("flow_encoder")
    feed = graph.feed([1, 2], [1, 0], [[0.5]])
    assert [(name, array.dtype.name) for name, array in feed.items()] == [
        ("tokens", "int64"),
        ("known", "float32"),
        ("embedding", "float32"),
    ]
    with pytest.raises(ValueError, match=r"tokens: shape \(1, 2\), expected \('tokens',\)"):
        graph.feed([[1, 2]], [1, 0], [[0.5]])
    with pytest.raises(ValueError, match="argument"):
        graph.feed([1, 2])


def test_sums_and_products_of_sizes_resolve_once_both_are_known() -> None:
    tensor = TensorSpec("mel", "float32", (1, "a + b", "a * b", "c"))
    assert tensor.resolved({"a": 3}) == (1, "a + b", "a * b", "c")
    assert tensor.resolved({"a": 3, "b": 4}) == (1, 7, 12, "c")
