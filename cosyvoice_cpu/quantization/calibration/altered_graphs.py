"""One component with altered graphs: run as in synthesis, with all that enters and leaves recorded.

The stage API gives a component's results alone; here every call and every output of a graph is
wanted. So the altered graphs are an engine of the component, and whoever runs it is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.component_runner import run_component
from cosyvoice_cpu.generations import TensorSpec
from cosyvoice_cpu.generations.components import Arrays
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import Engine, EngineOptions, Graph, GraphSource
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph, open_session
from cosyvoice_cpu.utterances import Utterance

Alter = Callable[[onnx.ModelProto], None]
PICK = "pick"  # an int64 input [n] that an altered graph may have: row numbers of what it observes


@dataclass(frozen=True, eq=False)
class GraphCall:
    """One call of a graph: what it was given, and all it gave but the KV cache."""

    source: GraphSource
    feed: Arrays
    outputs: Arrays


class AlteredComponent:
    """A component of a float32 bundle whose graphs are altered when they are opened."""

    def __init__(
        self,
        bundle: Bundle,
        name: ComponentName,
        threads: int,
        alter: Alter | None = None,
        *,
        prepack: bool = False,
    ) -> None:
        """`alter` may add outputs, which are recorded, and the input `PICK`.

        `prepack` lets the engine repack weights, as it does for integers.
        """
        self._name, self._threads, self._prepack = name, threads, prepack
        self._alter = alter
        self._calls: list[GraphCall] = []
        self._picked = 1
        engines = {name: Engine(self._open)}
        self._stages = BundleStages(bundle, threads, engines=engines)

    def run(self, item: Utterance, picked: int = 1) -> list[GraphCall]:
        """Every call that `item` takes; `picked` rows are drawn from those that are no padding."""
        self._picked = picked
        self._calls = []
        run_component(self._stages, self._name, item)
        return self._calls

    def again(self, calls: Sequence[GraphCall]) -> list[GraphCall]:
        """What these graphs make of the feeds of `calls`, which another component had."""
        graphs: dict[Path, Graph] = {}
        results = []
        for call in calls:
            path = call.source.path
            if path not in graphs:
                graphs[path] = self._session(call.source)
            outputs = graphs[path].run(call.feed)
            results.append(replace(call, outputs=_without_caches(call.source, outputs)))
        return results

    def _session(self, source: GraphSource) -> OnnxRuntimeGraph:
        model = onnx.load(str(source.path), load_external_data=False)
        if self._alter:
            self._alter(model)
        session = open_session(
            model.SerializeToString(),
            self._threads,
            prepack=self._prepack,
            weights_folder=source.path.parent,
        )
        return OnnxRuntimeGraph(session)

    def _open(self, source: GraphSource, options: EngineOptions) -> Graph:
        return _RecordingGraph(self._session(source), source, self._record)

    def _record(
        self, graph: Graph, source: GraphSource, feed: Mapping[str, NDArray[Any]]
    ) -> Arrays:
        given: Arrays = {name: np.array(array) for name, array in feed.items()}  # buffers change
        wanted = given.get("rows")
        if wanted is not None:  # the speech LM predicts at all positions here
            given["rows"] = np.arange(given["inputs_embeds"].shape[1])
        if any(tensor.name == PICK for tensor in graph.inputs):
            rows = np.random.default_rng(len(self._calls)).choice(_valid_rows(given), self._picked)
            given[PICK] = np.sort(rows)
        outputs = graph.run(given)
        self._calls.append(GraphCall(source, given, _without_caches(source, outputs)))
        if wanted is None:
            return outputs
        return outputs | {"logits": outputs["logits"][wanted]}


class _RecordingGraph(Graph):
    """Hands every call to `record`, which runs the graph."""

    def __init__(
        self,
        graph: Graph,
        source: GraphSource,
        record: Callable[[Graph, GraphSource, Mapping[str, NDArray[Any]]], Arrays],
    ) -> None:
        self._graph, self._source, self._record = graph, source, record

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return self._graph.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._graph.outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        return self._record(self._graph, self._source, feed)


def _valid_rows(feed: Arrays) -> NDArray[np.int64]:
    """Numbers of the rows that are no padding, of all rows of a batch one after the other."""
    if "valid_frames" not in feed:
        return np.arange(feed["inputs_embeds"].shape[1])
    batch, _, frames = feed["x"].shape
    valid = np.arange(int(feed["valid_frames"][0]))
    rows: NDArray[np.int64] = np.arange(batch)[:, None] * frames + valid
    return rows.reshape(-1)


def _without_caches(source: GraphSource, outputs: Arrays) -> Arrays:
    presents = [cache.present for cache in source.spec.caches if cache.present]
    caches = tuple(present.partition("{")[0] for present in presents)
    return {name: array for name, array in outputs.items() if not name.startswith(caches)}
