"""The torch engine: the stage API in torch on the networks of a bundle.

Each stage is ONNX Runtime's engine with its session exchanged for a network: lengths, padding,
solver, noise and errors are the same code, so that two engines on one bundle differ in arithmetic
only. The f0 predictor and the excitation stay with ONNX Runtime, in float64.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.component import WEIGHTS
from cosyvoice_cpu.quantization.fx.flow_encoder import TraceableFlowEncoder
from cosyvoice_cpu.quantization.fx.flow_estimator import TraceableFlowEstimator
from cosyvoice_cpu.quantization.fx.layers import GraphFacts, StoredLayers
from cosyvoice_cpu.quantization.fx.speech_lm import Past, TraceableSpeechLM
from cosyvoice_cpu.quantization.fx.vocoder import TraceableVocoder
from cosyvoice_cpu.quantization.stored import read_weights
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.flow import FlowEncoderEngine, FlowEstimatorEngine
from cosyvoice_cpu.runtime.speech_lm import EmbeddingRows, LMUtterance, SpeechLMEngine
from cosyvoice_cpu.runtime.vocoder import VocoderEngine


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
        super().__init__(bundle, threads)
        self._networks = networks

    @classmethod
    def load(
        cls, path: Path, threads: int = 1, *, trust: bool = False, low_memory: bool = False
    ) -> TorchStages:
        """All networks of a bundle, float32 or static-int8; `low_memory` has no meaning here.

        Raises: BundleError, ManifestError, UsageError for a kernel that torch does not run.
        """
        bundle = open_bundle(path, trust=trust)
        return cls(bundle, threads, {name: load_network(bundle, name) for name in NETWORKS})

    @cached_property
    def _speech_lm(self) -> SpeechLMEngine:
        network = self._networks.get("speech_lm")
        return _SpeechLM(self.bundle, network) if network else super()._speech_lm

    @cached_property
    def _flow_encoder(self) -> FlowEncoderEngine:
        engine = FlowEncoderEngine(self.bundle, self.threads)
        if "flow_encoder" in self._networks:
            engine._session = _Session(self._networks["flow_encoder"])
        return engine

    @cached_property
    def _flow_estimator(self) -> FlowEstimatorEngine:
        network = self._networks.get("flow_estimator")
        if network is None:
            return FlowEstimatorEngine(self.bundle, self.threads)
        return _FlowEstimator(self.bundle, self.threads, network)

    @cached_property
    def _vocoder(self) -> VocoderEngine:
        network = self._networks.get("vocoder")
        if network is None:
            return VocoderEngine(self.bundle, self.threads)
        return _Vocoder(self.bundle, self.threads, network)


class _Session:
    """A network in the place of an ONNX Runtime session."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    @torch.no_grad()
    def run(self, outputs: list[str], feed: Mapping[str, NDArray[Any]]) -> list[Floats]:
        """All outputs, which come in the order of the graph's."""
        return [
            tensor.numpy()
            for tensor in self._network(*(torch.from_numpy(array) for array in feed.values()))
        ]


class _SpeechLM(SpeechLMEngine):
    def __init__(self, bundle: Bundle, network: nn.Module) -> None:
        EmbeddingRows.__init__(self, bundle)
        self._network = network

    def start(self) -> LMUtterance:
        return _Utterance(self, self._network)


class _Utterance(LMUtterance):
    def __init__(self, engine: SpeechLMEngine, network: nn.Module) -> None:
        self._engine = engine
        self._network, self._past = network, Past()

    @torch.no_grad()
    def append(self, rows: Floats, wanted: int) -> Floats:
        return _array(self._network(_tensor(rows)[None], self._past, wanted))


class _FlowEstimator(FlowEstimatorEngine):
    def __init__(self, bundle: Bundle, threads: int, network: nn.Module) -> None:
        super().__init__(bundle, threads)
        self._network = network
        self._chunk = bundle.manifest.synthesis.chunk_frames

    @torch.no_grad()
    def _pair(
        self,
        x: Floats,
        mu: Floats,
        speaker: Floats,
        cond: Floats,
        *,
        step: int,
        frames: int,
        streaming: bool,
    ) -> Floats:
        mels = [_tensor(array[:, :, :frames]) for array in (x, mu, cond)]
        chunk = self._chunk if streaming else None
        return _array(self._network(*mels, _tensor(speaker), step, chunk))


class _Vocoder(VocoderEngine):
    def __init__(self, bundle: Bundle, threads: int, network: nn.Module) -> None:
        super().__init__(bundle, threads)
        self._network = network

    @torch.no_grad()
    def _generate(self, mel: Floats, source: Floats, frames: int) -> Floats:
        context = frames + self._mel_ahead - mel.shape[1]
        padded = np.pad(mel, ((0, 0), (0, context)))[None]
        samples = source[:, : frames * self._samples_per_frame]
        return _array(self._network(_tensor(padded), _tensor(samples))[0])


def _tensor(array: Floats) -> Tensor:
    return torch.tensor(np.asarray(array, np.float32))  # a copy: some arrays are read-only


def _array(tensor: Tensor) -> Floats:
    array: Floats = tensor.numpy()
    return array
