"""Write one component of a bundle: weights, graphs, and their parity with torch."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import HALF_STORAGE, ComponentName, Shapes
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.checkpoint.folder import Checkpoint
from cosyvoice_cpu.decoding.solver import solver_times, time_grid
from cosyvoice_cpu.export.f0 import build_excitation, build_f0_predictor, f0_weights
from cosyvoice_cpu.export.flow_encoder import build_flow_encoder, flow_encoder_weights
from cosyvoice_cpu.export.flow_estimator import build_flow_estimator, flow_estimator_weights
from cosyvoice_cpu.export.parity import (
    FLOAT16_LIMITS,
    FLOAT32_LIMITS,
    flow_encoder_errors,
    flow_estimator_errors,
    probe_sizes,
    require_parity,
    require_same_graph,
    speech_lm_errors,
    vocoder_errors,
)
from cosyvoice_cpu.export.speech_lm import build_speech_lm, speech_lm_weights
from cosyvoice_cpu.export.vocoder import build_vocoder, vocoder_weights
from cosyvoice_cpu.export.weights import write_weights
from cosyvoice_cpu.networks.deployed.storage import config_metadata
from cosyvoice_cpu.networks.reference.weights import load_networks
from cosyvoice_cpu.runtime.ladder import GRID_FRAMES, ladder_sizes

WEIGHTS = "weights.safetensors"
Progress = Callable[[str, float], None]
"""(component, share of it that is done, 0..1)."""

DYNAMIC = Shapes(kind="dynamic", unit="tokens", sizes=[])


@dataclass(frozen=True)
class ExportSettings:
    """What the user chose."""

    static: bool  # a ladder of static shapes, or one graph for any length
    half: bool  # weights stored as float16
    max_frames: int  # mel frames, prompt included
    threads: int

    @property
    def precision(self) -> str:
        """As the manifest calls it."""
        return HALF_STORAGE if self.half else "float32"

    def sizes(self, first: int) -> list[int | None]:
        """The ladder from `first` frames, or the one dynamic size."""
        return [*ladder_sizes(self.max_frames, first)] if self.static else [None]

    def shapes(self, sizes: list[int | None]) -> Shapes:
        """The manifest's entry for a ladder."""
        numbers = [size for size in sizes if size]
        return Shapes(kind="static" if numbers else "dynamic", unit="mel_frames", sizes=numbers)

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
    config = checkpoint.config
    network = load_networks(checkpoint, "speech_lm")["speech_lm"]
    stored = write_weights(
        writer.path_for("speech_lm", WEIGHTS),
        speech_lm_weights(network),
        metadata=config_metadata(config.speech_lm),
        half=settings.half,
    )
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
    config = checkpoint.config
    networks = load_networks(checkpoint, "flow")
    encoder, network = networks["flow_encoder"], networks["flow_estimator"]
    stored = write_weights(
        writer.path_for("flow_encoder", WEIGHTS),
        flow_encoder_weights(encoder),
        metadata=config_metadata(config.flow),
        half=settings.half,
    )
    path = writer.path_for("flow_encoder", "flow_encoder.onnx")
    build_flow_encoder(config.flow, stored, path)
    encoder_errors = flow_encoder_errors(encoder, config, path, settings.threads)
    settings.require("flow_encoder", encoder_errors)
    progress("flow_encoder", 1.0)

    times = solver_times(time_grid(checkpoint.generation.solver_steps))
    sizes = settings.sizes(2 * GRID_FRAMES)
    stored = write_weights(
        writer.path_for("flow_estimator", WEIGHTS),
        flow_estimator_weights(
            network, times, sizes[-1] or checkpoint.generation.fixed_noise_frames
        ),
        metadata=config_metadata(config.flow.estimator),
        half=settings.half,
    )
    progress("flow_estimator", 0.2)
    graphs: list[tuple[Path, int | None, bool]] = []
    spec = checkpoint.generation.components["flow_estimator"]
    for variant, chunked in (("full", False), ("chunked", True)):
        for size in sizes:
            path = writer.path_for("flow_estimator", spec.graph(variant).file(size))
            build_flow_estimator(config.flow.estimator, stored, path, frames=size, chunked=chunked)
            graphs.append((path, size, chunked))
        require_same_graph([path for path, _, mode in graphs if mode == chunked])
    progress("flow_estimator", 0.4)
    probes = probe_sizes([size for size in sizes if size]) if settings.static else [None]
    errors = flow_estimator_errors(
        network,
        config,
        [graph for graph in graphs if graph[1] in probes],
        times,
        settings.threads,
        lambda done: progress("flow_estimator", 0.4 + 0.6 * done),
    )
    settings.require("flow_estimator", errors)
    return {
        "flow_encoder": settings.draft(DYNAMIC, encoder_errors),
        "flow_estimator": settings.draft(settings.shapes(sizes), errors),
    }


def write_vocoder(
    checkpoint: Checkpoint, writer: BundleWriter, settings: ExportSettings, progress: Progress
) -> ComponentDraft:
    """f0 predictor, excitation and the generator's ladder."""
    config = checkpoint.config
    network = load_networks(checkpoint, "vocoder")["vocoder"]
    stored = write_weights(
        writer.path_for("vocoder", WEIGHTS),
        vocoder_weights(network) | f0_weights(network),
        metadata=config_metadata(config.vocoder),
        half=settings.half,
    )
    build_f0_predictor(config.vocoder, stored, writer.path_for("vocoder", "f0_predictor.onnx"))
    build_excitation(config.vocoder, stored, writer.path_for("vocoder", "excitation.onnx"))
    sizes = settings.sizes(GRID_FRAMES)
    graphs: list[tuple[Path, int | None]] = []
    generator = checkpoint.generation.components["vocoder"].graph("generator")
    for size in sizes:
        path = writer.path_for("vocoder", generator.file(size))
        build_vocoder(config.vocoder, stored, path, frames=size)
        graphs.append((path, size))
    require_same_graph([path for path, _ in graphs])
    progress("vocoder", 0.3)
    probes = probe_sizes([size for size in sizes if size]) if settings.static else [None]
    errors = vocoder_errors(
        network,
        config,
        writer.path_for("vocoder", WEIGHTS).parent,
        [graph for graph in graphs if graph[1] in probes],
        settings.threads,
        lambda done: progress("vocoder", 0.3 + 0.7 * done),
    )
    settings.require("vocoder", errors)
    return settings.draft(settings.shapes(sizes), errors)


def copy_front_end(
    checkpoint: Checkpoint, writer: BundleWriter
) -> dict[ComponentName, ComponentDraft]:
    """The official ONNX models and the text tokenizer's files, as they are.

    Raises: SpeakerError if a model's signature is not the official one, CheckpointError for a
    vocabulary that can't be read.
    """
    from cosyvoice_cpu.frontend.prepare import FrontEndModels
    from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

    generation = checkpoint.generation
    encoder = writer.path_for("speaker_encoder", "speaker_encoder.onnx")
    tokenizer = writer.path_for("speech_tokenizer", "speech_tokenizer.onnx")
    shutil.copyfile(checkpoint.path(generation.speaker_encoder_file), encoder)
    shutil.copyfile(checkpoint.path(generation.speech_tokenizer_file), tokenizer)
    FrontEndModels(encoder, tokenizer)
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
