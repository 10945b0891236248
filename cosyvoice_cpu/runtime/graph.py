"""The seam for engines: what an opened graph can do, and which engine opens it.

    engine = engine_named("onnxruntime")                    # or Engine(MyGraph) of one's own
    graph = engine.open(GraphSource(bundle, "vocoder", "generator", 500), EngineOptions(threads=2))
    graph.run({"mel": mel, "source": source, "valid_frames": frames})["waveform"]

What to feed (padding to the ladder, masks, look-ahead, the solver's step) is not an engine's
business; it is in `runtime.flow`, `vocoder` and `speech_lm`, the same for all engines. To add an
engine, write a class that implements `Graph` and give `ENGINES` its place.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.generations import GraphSpec, TensorSpec, generation_named
from cosyvoice_cpu.generations.components import Arrays, ComponentSpec

# Name in the manifest to module:attribute of its `Engine`, imported when it is first asked for.
ENGINES = {
    "onnxruntime": "cosyvoice_cpu.runtime.onnxruntime_engine:ENGINE",
    "openvino": "cosyvoice_cpu.runtime.openvino_engine:ENGINE",  # needs the extra `openvino`
    "openvino-bf16": "cosyvoice_cpu.runtime.openvino_engine:BFLOAT16",
    "torch": "cosyvoice_cpu.networks.torch_engine:ENGINE",  # needs the extra `export`
}


class BoundGraph(Protocol):
    """A graph whose caches are bound to memory that it reads and writes in place."""

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """The outputs that are not bound, by name, from the inputs that are not bound."""
        ...


class Graph(ABC):
    """One graph, opened by an engine. `run` may be called from several threads at once."""

    # Whether it holds a copy of its weights, so that each open size of a ladder costs them again.
    private_weights: bool = False

    @property
    @abstractmethod
    def inputs(self) -> Sequence[TensorSpec]:
        """What `run` takes, caches included, with the shapes of this very graph."""

    @property
    @abstractmethod
    def outputs(self) -> Sequence[TensorSpec]:
        """What `run` gives, caches included."""

    @abstractmethod
    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """Every output by name. Raises: whatever the engine raises."""

    def close(self) -> None:  # noqa: B027 - an engine may have nothing to free
        """Free what the engine holds, whoever still has this object; it is not run again."""

    def bind(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> BoundGraph:
        """This graph with `inputs` read from, and `outputs` written to, these very arrays.

        An array may be bound on both sides. An output smaller than its array fills the beginning
        of each axis. This implementation copies; an engine that can, writes in place.
        """
        return _CopyingGraph(self, inputs, outputs)


class _CopyingGraph:
    def __init__(
        self,
        graph: Graph,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._graph, self._inputs, self._outputs = graph, inputs, outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        results = self._graph.run({**feed, **self._inputs})
        for name, array in self._outputs.items():
            value = results.pop(name)
            array[tuple(slice(length) for length in value.shape)] = value
        return results


@dataclass(frozen=True)
class GraphSource:
    """Which graph of a bundle to open."""

    bundle: Bundle
    component: ComponentName
    variant: str
    size: int | None = None  # of a ladder, in its symbol; None for any length

    @property
    def component_spec(self) -> ComponentSpec:
        """The component's record in the table. Raises: UsageError for an unknown generation."""
        return generation_named(self.bundle.manifest.generation).components[self.component]

    @property
    def spec(self) -> GraphSpec:
        """The graph's record in the table."""
        return self.component_spec.graph(self.variant)

    @property
    def path(self) -> Path:
        """Its file. Raises: BundleError if the bundle lists none."""
        return self.bundle.file(self.component, self.spec.file(self.size))

    @property
    def precision(self) -> str:
        """Of the component, as the manifest calls it: what layout its weights want."""
        return self.bundle.component(self.component).precision


@dataclass(frozen=True)
class Recording:
    """Graphs opened with it write what each of their kernels takes to files of `folder`."""

    folder: Path
    opened: list[tuple[str, Callable[[], str | Path]]] = field(default_factory=list)

    def files(self) -> dict[str, Path]:
        """Ends the recording: name of each graph's file, without suffix, to its file of times."""
        return {name: Path(end()) for name, end in self.opened}


@dataclass(frozen=True)
class EngineOptions:
    """How to open graphs, whatever the engine."""

    threads: int = 1
    low_memory: bool = False  # rather slower than weights in memory twice
    recording: Recording | None = None  # for an engine that can time its kernels
    keep_prepacked: bool = False  # what an engine makes of the weights may go to the user's cache


@dataclass(frozen=True)
class Engine:
    """How graphs are opened, and whether they need one of the ladder's sizes."""

    open: Callable[[GraphSource, EngineOptions], Graph]
    any_length: bool = False  # `size` of the source is then None, and nothing is padded
    require: Callable[[], None] = lambda: None  # raises what keeps it from this machine


def engine_named(name: str) -> Engine:
    """The engine of that name in `ENGINES`. Raises: BundleError for another name."""
    try:
        module, _, attribute = ENGINES[name].partition(":")
    except KeyError:
        raise BundleError(
            f"the bundle wants the engine {name!r}, which this cosyvoice-cpu has not",
            f"engines: {', '.join(ENGINES)}; update cosyvoice-cpu",
        ) from None
    engine: Engine = getattr(import_module(module), attribute)
    return engine
