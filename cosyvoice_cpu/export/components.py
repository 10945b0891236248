"""Write one component of a bundle: weights, graphs, and their parity with torch."""

from __future__ import annotations

import gc
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import HALF_STORAGE, ComponentName, Shapes
from cosyvoice_cpu.bundle.onnx_scan import scan_onnx
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.checkpoint.folder import Checkpoint
from cosyvoice_cpu.errors import ParityError
from cosyvoice_cpu.export.graph_files import attach_weights, write_graphs
from cosyvoice_cpu.export.parity import (
    FLOAT16_LIMITS,
    FLOAT32_LIMITS,
    flow_encoder_errors,
    flow_estimator_errors,
    flow_stream_errors,
    probe_sizes,
    require_parity,
    speech_lm_errors,
    vocoder_errors,
)
from cosyvoice_cpu.export.speech_lm import build_speech_lm
from cosyvoice_cpu.export.trace import traced
from cosyvoice_cpu.export.weights import StoredWeight, Weight, write_weights
from cosyvoice_cpu.generations.components import WEIGHTS_FILE, ComponentSpec, GraphSpec
from cosyvoice_cpu.networks.deployed.flow_encoder import FlowEncoder
from cosyvoice_cpu.networks.deployed.flow_estimator import FlowEstimator
from cosyvoice_cpu.networks.deployed.speech_lm import SpeechLM
from cosyvoice_cpu.networks.deployed.storage import config_metadata, stored_tensors
from cosyvoice_cpu.networks.deployed.vocoder import Vocoder
from cosyvoice_cpu.networks.reference.weights import load_networks
from cosyvoice_cpu.progress import Progress, share_of
from cosyvoice_cpu.runtime.ladder import ladder_sizes

DYNAMIC = Shapes(kind="dynamic", unit="tokens", sizes=[])


@dataclass(frozen=True)
class ExportSettings:
    """What the user chose."""

    static: bool  # a ladder of static shapes, or one graph for any length
    half: bool  # weights stored as float16
    max_frames: int  # mel frames, prompt included
    threads: int
    times: Floats  # that the flow estimator is made for

    @property
    def precision(self) -> str:
        """As the manifest calls it."""
        return HALF_STORAGE if self.half else "float32"

    def sizes(self, graph: GraphSpec) -> list[int | None]:
        """The ladder of a graph, or the one size None: any length."""
        if not (self.static and graph.ladder):
            return [None]
        return [*ladder_sizes(self.max_frames, graph.ladder.first)]

    def shapes(self, graph: GraphSpec) -> Shapes:
        """The manifest's entry for the ladder of a graph."""
        sizes = [size for size in self.sizes(graph) if size]
        return Shapes(kind="static" if sizes else "dynamic", unit="mel_frames", sizes=sizes)

    def draft(self, shapes: Shapes, errors: dict[str, float]) -> ComponentDraft:
        """The manifest's entry of a network. Raises: ParityError if it strays from torch."""
        return ComponentDraft(
            precision=self.precision, engine="onnxruntime", shapes=shapes, parity=errors
        )

    def require(self, component: str, errors: dict[str, float]) -> None:
        """Raises: ParityError if a measured error is over its limit."""
        require_parity(component, errors, FLOAT16_LIMITS if self.half else FLOAT32_LIMITS)


def write_speech_lm(
    checkpoint: Checkpoint, writer: BundleWriter, settings: ExportSettings, progress: Progress
) -> ComponentDraft:
    """One graph for prefill and decode."""
    spec, config = checkpoint.generation.components["speech_lm"], checkpoint.config
    network = load_networks(checkpoint, "speech_lm")["speech_lm"]
    stored = _write_weights(spec, SpeechLM.from_reference(network), writer, settings)
    progress("speech_lm", 0.6)
    path = writer.path_for("speech_lm", "speech_lm.onnx")
    build_speech_lm(config.speech_lm, stored, path)
    errors = speech_lm_errors(network, config, path, settings.threads)
    settings.require("speech_lm", errors)
    return settings.draft(DYNAMIC, errors)


def write_flow(
    checkpoint: Checkpoint, writer: BundleWriter, settings: ExportSettings, progress: Progress
) -> dict[ComponentName, ComponentDraft]:
    """Flow encoder and flow estimator, which share a checkpoint file."""
    config, components = checkpoint.config, checkpoint.generation.components
    networks = load_networks(checkpoint, "flow")
    encoder, network = networks["flow_encoder"], networks["flow_estimator"]
    deployed: nn.Module = FlowEncoder.from_reference(encoder)
    paths = _write_network(components["flow_encoder"], deployed, writer, settings)
    encoder_errors = flow_encoder_errors(
        encoder, config, paths["flow_encoder"][None], settings.threads
    )
    settings.require("flow_encoder", encoder_errors)
    progress("flow_encoder", 1.0)

    spec = components["flow_estimator"]
    # As many positions as the top of the ladder, or as there is noise for.
    top = settings.sizes(spec.graphs[0])[-1] or checkpoint.generation.fixed_noise_frames
    deployed = FlowEstimator.from_reference(network, settings.times, positions=top)
    paths = _write_network(spec, deployed, writer, settings)
    progress("flow_estimator", 0.4)
    errors = flow_estimator_errors(
        network,
        config,
        [
            (paths[variant][size], size, variant == "chunked")
            for variant in ("full", "chunked")
            for size in probe_sizes(paths[variant])
        ],
        settings.times,
        settings.threads,
        share_of(progress, "flow_estimator", start=0.4),
    )
    stream = paths["stream"][None]
    errors |= flow_stream_errors(
        network, config, spec, stream, settings.times, top, settings.threads
    )
    settings.require("flow_estimator", errors)
    return {
        "flow_encoder": settings.draft(DYNAMIC, encoder_errors),
        "flow_estimator": settings.draft(settings.shapes(spec.graphs[0]), errors),
    }


def write_vocoder(
    checkpoint: Checkpoint, writer: BundleWriter, settings: ExportSettings, progress: Progress
) -> ComponentDraft:
    """f0 predictor, excitation and the generator's ladder."""
    spec, config = checkpoint.generation.components["vocoder"], checkpoint.config
    network = load_networks(checkpoint, "vocoder")["vocoder"]
    paths = _write_network(spec, Vocoder.from_reference(network), writer, settings)
    progress("vocoder", 0.3)
    errors = vocoder_errors(
        network,
        config,
        writer.path_for("vocoder", WEIGHTS_FILE).parent,
        [(paths["generator"][size], size) for size in probe_sizes(paths["generator"])],
        settings.threads,
        share_of(progress, "vocoder", start=0.3),
    )
    settings.require("vocoder", errors)
    return settings.draft(settings.shapes(spec.graph("generator")), errors)


def _write_weights(
    spec: ComponentSpec, network: Any, writer: BundleWriter, settings: ExportSettings
) -> dict[str, StoredWeight]:
    return write_weights(
        writer.path_for(spec.name, WEIGHTS_FILE),
        {name: Weight.of(tensor.numpy()) for name, tensor in stored_tensors(network).items()},
        metadata=config_metadata(network.config),
        half=settings.half,
    )


def _write_network(
    spec: ComponentSpec, network: Any, writer: BundleWriter, settings: ExportSettings
) -> dict[str, dict[int | None, Path]]:
    """Weights and traced graphs of a component; the files by variant and length.

    Raises: ParityError if a weight is in no graph.
    """
    stored = _write_weights(spec, network, writer, settings)
    unused = set(stored)
    files: dict[str, dict[int | None, Path]] = {}
    for graph in spec.graphs:
        sizes = settings.sizes(graph)
        files[graph.variant] = {s: writer.path_for(spec.name, graph.file(s)) for s in sizes}
        model = traced(spec, graph, network)
        unused -= attach_weights(model, stored)
        write_graphs(model, spec, graph, network.config, files[graph.variant])
    if unused:
        raise ParityError(
            f"{spec.name}: torch's exporter lost the weight {min(unused)}",
            "install the versions of torch and onnxscript that constraints.txt names",
        )
    return files


def copy_front_end(
    checkpoint: Checkpoint, writer: BundleWriter
) -> dict[ComponentName, ComponentDraft]:
    """The official ONNX models and the text tokenizer's files, as they are.

    But for the speaker encoder's pooling, where versions of ONNX Runtime differ (`pooling`).
    Raises: SpeakerError if a model's signature is not the official one or it does not run within
    limits, BundleError if it refers to other files, CheckpointError for a vocabulary that can't be
    read.
    """
    from cosyvoice_cpu.export.pooling import copy_with_one_pooling_rule
    from cosyvoice_cpu.frontend.model_trial import try_models
    from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

    generation = checkpoint.generation
    encoder = writer.path_for("speaker_encoder", "speaker_encoder.onnx")
    tokenizer = writer.path_for("speech_tokenizer", "speech_tokenizer.onnx")
    shutil.copyfile(checkpoint.path(generation.speaker_encoder_file), encoder)
    shutil.copyfile(checkpoint.path(generation.speech_tokenizer_file), tokenizer)
    for path in (encoder, tokenizer):
        scan_onnx(path, {path.name: path.stat().st_size})  # before anything opens it
    try_models(encoder, tokenizer)
    copy_with_one_pooling_rule(checkpoint.path(generation.speaker_encoder_file), encoder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        source = checkpoint.folder / generation.text_folder / name
        if source.is_file():
            shutil.copyfile(source, writer.path_for("text_tokenizer", name))
    TextTokenizer.load(
        writer.path_for("text_tokenizer", "vocab.json").parent, generation=generation.name
    )
    features = Shapes(kind="dynamic", unit="feature_frames", sizes=[])
    model = ComponentDraft(precision="float32", engine="onnxruntime", shapes=features)
    return {
        "speaker_encoder": model,
        "speech_tokenizer": model,
        "text_tokenizer": ComponentDraft(
            precision="text",
            engine="tokenizers",
            shapes=Shapes(kind="none", unit="none", sizes=[]),
        ),
    }


def release() -> None:
    """Give a finished component's memory back before the next one is loaded."""
    gc.collect()
