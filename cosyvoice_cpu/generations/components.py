"""The record that describes one component: its classes, its files, and what its graphs take.

Export, engines, parity and quantization read names, types and shapes of a graph from here, so that
each is written once. Classes are named, not imported: nothing here needs torch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.manifest import ComponentName

Dim = int | str
"""A number, or a symbol, or `symbol + symbol`, or `symbol * symbol`, as ONNX writes them."""
Arrays = dict[str, NDArray[Any]]

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class TensorSpec:
    """An input or output of a graph. A symbol that `ComponentSpec.sizes` lacks is any length."""

    name: str
    dtype: str  # as NumPy calls it
    shape: tuple[Dim, ...]

    def resolved(self, sizes: Mapping[str, int]) -> tuple[Dim, ...]:
        """The shape with every symbol of `sizes` as its number."""
        return tuple(_resolved(dim, sizes) for dim in self.shape)


@dataclass(frozen=True)
class CacheSpec:
    """State that a graph reads as one input and gives back as one output, for each layer.

    `axis` of the shape grows with what was read. Past and present of one shape may be one buffer,
    which the engine then writes in place; what no step has written holds `initial`.
    """

    past: str  # name of the input, with {layer}
    present: str | None  # name of the output, with {layer}; None for a state that is only read
    dtype: str  # as NumPy calls it
    shape: tuple[Dim, ...]
    axis: int
    initial: float = 0.0
    fresh: Dim | None = None  # the output's size on `axis`, where it holds only what was just read

    @property
    def writes_past(self) -> bool:
        """Whether the output is the input with what was read in it."""
        return self.present is not None and self.fresh is None

    def tensors(self, layer: int) -> tuple[TensorSpec, TensorSpec | None]:
        """Input and output of one layer, numbered from 0."""
        past = TensorSpec(self.past.format(layer=layer), self.dtype, self.shape)
        if self.present is None:
            return past, None
        shape = list(self.shape)
        if self.fresh is not None:
            shape[self.axis] = self.fresh
        return past, TensorSpec(self.present.format(layer=layer), self.dtype, tuple(shape))


@dataclass(frozen=True)
class LadderSpec:
    """The symbol that a static graph fixes, and the smallest of its sizes."""

    symbol: str
    first: int
    unit: Literal["mel_frames"] = "mel_frames"


@dataclass(frozen=True)
class GraphSpec:
    """One graph file, or one ladder of files that differ in declared sizes alone."""

    variant: str  # the file's name without size and suffix
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    caches: tuple[CacheSpec, ...] = ()  # for each of the `layers` of the component
    ladder: LadderSpec | None = None  # None: one graph for any length
    past: int = 0  # frames or tokens that it looks back, for graphs that streams run on pieces
    arithmetic: Literal["float32", "float64"] = "float32"  # inside; inputs say their own type

    def file(self, size: int | None = None) -> str:
        """Name of the graph's file in the component's folder; `size` None: for any length."""
        return f"{self.variant}.onnx" if size is None else f"{self.variant}-{size:05d}.onnx"

    def feed(self, *values: object) -> Arrays:
        """The inputs' arrays by name, from their values in the table's order, in its types.

        Raises: ValueError for another number of values or a wrong number of axes.
        """
        feed: Arrays = {}
        for spec, value in zip(self.inputs, values, strict=True):
            array = np.asarray(value, spec.dtype)
            if array.ndim != len(spec.shape):
                raise ValueError(f"{spec.name}: shape {array.shape}, expected {spec.shape}")
            feed[spec.name] = array
        return feed

    def results(self, outputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], ...]:
        """The outputs in the table's order; caches and whatever else was fetched stay out."""
        return tuple(outputs[spec.name] for spec in self.outputs)


@dataclass(frozen=True)
class ComponentSpec:
    """One component of one generation."""

    name: ComponentName
    config: str  # attribute of `CheckpointConfig` that sizes it, dotted
    checkpoint_part: Literal["speech_lm", "flow", "vocoder"]  # official file that holds its tensors
    key_prefix: str  # of its tensors there; the component with the longest that fits has them
    reference: str  # module:Class, the official form in torch
    deployed: str  # module:Class, the form that runs, exports and quantizes
    graphs: tuple[GraphSpec, ...]
    # Symbols of the shapes to numbers, or to attributes of `config`, dotted.
    sizes: Mapping[str, int | str]
    layers: str | None = None  # attribute of `config`: how many layers have a cache

    def graph(self, variant: str) -> GraphSpec:
        """The graph of that name. Raises: KeyError."""
        for graph in self.graphs:
            if graph.variant == variant:
                return graph
        raise KeyError(f"{self.name} has no graph {variant}")

    def graph_of_file(self, file: str) -> GraphSpec | None:
        """The graph whose file, at any size, is called `file`; None for weights and the like."""
        match = re.fullmatch(r"(.+?)(-\d{5})?\.onnx", file)
        named = [graph for graph in self.graphs if match and graph.variant == match[1]]
        return named[0] if named else None

    def numbers(self, config: object) -> dict[str, int]:
        """Every symbol that the checkpoint decides; `config` is this component's."""
        return {
            symbol: size if isinstance(size, int) else int(_attribute(config, size))
            for symbol, size in self.sizes.items()
        }

    def layer_count(self, config: object) -> int:
        """Layers with a cache; 0 for a component without one."""
        return int(_attribute(config, self.layers)) if self.layers else 0

    def tensors(
        self, graph: GraphSpec, config: object
    ) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
        """All inputs and all outputs of a graph, behind the others the caches, layer by layer."""
        layers = range(self.layer_count(config))
        caches = [cache.tensors(layer) for layer in layers for cache in graph.caches]
        return (
            (*graph.inputs, *(past for past, _ in caches)),
            (*graph.outputs, *(present for _, present in caches if present)),
        )

    def config_of(self, checkpoint_config: object) -> Any:
        """This component's part of a `CheckpointConfig`."""
        return _attribute(checkpoint_config, self.config)

    def reference_class(self) -> type[Any]:
        """Imports torch. Raises: ImportError without it."""
        return _load(self.reference)

    def deployed_class(self) -> type[Any]:
        """Imports torch. Raises: ImportError without it."""
        return _load(self.deployed)


def _resolved(dim: Dim, sizes: Mapping[str, int]) -> Dim:
    if isinstance(dim, int):
        return dim
    terms = re.split(r" ([+*]) ", dim)
    known = [sizes.get(term) for term in terms[::2]]
    if len(known) == 1:
        return dim if known[0] is None else known[0]
    first, second = known
    if first is None or second is None:
        return dim
    return first + second if terms[1] == "+" else first * second


def _attribute(holder: object, dotted: str) -> Any:
    for name in dotted.split("."):
        holder = getattr(holder, name)
    return holder


def _load(place: str) -> type[Any]:
    module, _, name = place.partition(":")
    loaded: type[Any] = getattr(import_module(module), name)
    return loaded
