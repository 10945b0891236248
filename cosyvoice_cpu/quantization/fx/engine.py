"""The torch engine: the stage API in torch on the networks of a bundle.

Each stage is ONNX Runtime's engine with its session exchanged for a network: lengths, padding,
solver, noise and errors are the same code, so that two engines on one bundle differ in arithmetic
only. The f0 predictor and the excitation stay with ONNX Runtime, in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.export.weights import Weight, read_weights
from cosyvoice_cpu.generations import GraphSpec, TensorSpec
from cosyvoice_cpu.generations.components import Arrays
from cosyvoice_cpu.quantization.fx.flow_encoder import TraceableFlowEncoder
from cosyvoice_cpu.quantization.fx.flow_estimator import TraceableFlowEstimator
from cosyvoice_cpu.quantization.fx.layers import GraphFacts, StoredLayers
from cosyvoice_cpu.quantization.fx.speech_lm import Past, TraceableSpeechLM
from cosyvoice_cpu.quantization.fx.vocoder import TraceableVocoder
from cosyvoice_cpu.quantization.search.candidate import WEIGHTS
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import (
    BoundGraph,
    Engine,
    EngineOptions,
    Graph,
    GraphSource,
    Recording,
)
from cosyvoice_cpu.runtime.ladder import Engines
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph


class Traceable(Protocol):
    """A network of this folder."""

    opaque: Collection[type[nn.Module]]

    def __init__(self, stored: StoredLayers, facts: GraphFacts) -> None: ...


# Component to its network and to the start of the names of the graphs that it computes.
NETWORKS: dict[ComponentName, tuple[type[Any], str]] = {
    "speech_lm": (TraceableSpeechLM, "speech_lm"),
    "flow_encoder": (TraceableFlowEncoder, "flow_encoder"),
    "flow_estimator": (TraceableFlowEstimator, "full"),
    "vocoder": (TraceableVocoder, "generator"),
}


def load_network(
    bundle: Bundle, name: ComponentName, weights: Mapping[str, Weight] | None = None
) -> nn.Module:
    """The network of a component, on its own weights or on other ones of the same names.

    Raises: UsageError if a layer's kernel is not one that torch runs.
    """
    kind, start = NETWORKS[name]
    if weights is None:
        weights = read_weights(bundle.file(name, WEIGHTS))
    files = [entry.path.split("/")[1] for entry in bundle.component(name).files]
    graph = next(file for file in files if file.startswith(start) and file.endswith(".onnx"))
    network: nn.Module = kind(StoredLayers(weights), GraphFacts(bundle.file(name, graph)))
    return network.eval()


class TorchStages(BundleStages):
    """Implements `cosyvoice_cpu.stage_api.Stages`; components without a network run as ever."""

    def __init__(
        self, bundle: Bundle, threads: int, networks: Mapping[ComponentName, nn.Module]
    ) -> None:
        """`threads` becomes torch's setting, process-wide."""
        torch.set_num_threads(threads)
        self._networks = networks
        engine = Engine(self._open_graph, any_length=True)
        super().__init__(bundle, threads, engines=dict.fromkeys(networks, engine))

    @classmethod
    def load(
        cls,
        path: Path,
        threads: int = 1,
        *,
        trust: bool = False,
        low_memory: bool = False,
        engines: Engines | None = None,
        recording: Recording | None = None,
    ) -> TorchStages:
        """All networks of a bundle, float32 or static-int8; `threads` and `trust` alone count.

        Raises: BundleError, ManifestError, UsageError for a kernel that torch does not run.
        """
        bundle = open_bundle(path, trust=trust)
        return cls(bundle, threads, {name: load_network(bundle, name) for name in NETWORKS})

    def _open_graph(self, source: GraphSource, options: EngineOptions) -> Graph:
        if source.variant in ("f0_predictor", "excitation"):
            return OnnxRuntimeGraph.open(source, options)
        chunk = self.manifest.synthesis.chunk_frames if source.variant == "chunked" else None
        return _TorchGraph(self._networks[source.component], source, chunk)


class _TorchGraph(Graph):
    """A network in the place of a graph; it knows no padding."""

    def __init__(self, network: nn.Module, source: GraphSource, chunk: int | None) -> None:
        self._network, self._spec, self._chunk = network, source.spec, chunk

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return self._spec.inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._spec.outputs

    @torch.no_grad()
    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        values = [feed[tensor.name] for tensor in self._spec.inputs]
        if self._spec.variant == "flow_encoder":
            results = self._network(*map(torch.tensor, values))
        elif self._spec.variant == "generator":
            results = (self._network(*map(_tensor, values[:2])),)
        else:
            *arrays, step, _ = values
            results = (self._network(*map(_tensor, arrays), int(step), self._chunk),)
        names = [tensor.name for tensor in self._spec.outputs]
        return {name: _array(tensor) for name, tensor in zip(names, results, strict=True)}

    def bind(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> BoundGraph:
        return _BoundSpeechLM(self._network, self._spec)


class _BoundSpeechLM:
    """The traceable speech LM keeps its past in tensors of its own."""

    def __init__(self, network: nn.Module, spec: GraphSpec) -> None:
        self._network, self._spec, self._past = network, spec, Past()

    @torch.no_grad()
    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        rows, wanted, _, total = (feed[tensor.name] for tensor in self._spec.inputs)
        if self._past.length(0) + rows.shape[1] != total[0]:
            raise ValueError("the past was in another binding, which had too little room")
        logits = self._network(_tensor(rows), self._past, len(wanted))
        return {self._spec.outputs[0].name: _array(logits)}


def _tensor(array: Floats) -> Tensor:
    return torch.tensor(np.asarray(array, np.float32))  # a copy: some arrays are read-only


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.numpy()
    return array
