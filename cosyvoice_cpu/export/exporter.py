"""From an official checkpoint folder to a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest, Quality, Source, SourceFile
from cosyvoice_cpu.bundle.preset_file import read_preset_file
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.checkpoint.folder import Checkpoint, open_checkpoint
from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings
from cosyvoice_cpu.errors import UsageError, library_error
from cosyvoice_cpu.progress import Progress, no_progress

DEFAULT_MAX_SECONDS = 60.0  # the longest prompt (30 s) and half a minute of speech
_MIN_SECONDS = 2.0
_GRAPHS_BYTES = 40_000_000  # of a ladder, above what the checkpoint's files take


def export_checkpoint(
    folder: Path,
    output: Path,
    *,
    shapes: str = "static",
    storage: str = "float32",
    max_seconds: float = DEFAULT_MAX_SECONDS,
    speech_lm: str = "base",
    front_end: bool = True,
    presets: Path | None = None,
    overwrite: bool = False,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Manifest:
    """Export the checkpoint in `folder` to a new bundle at `output`; returns its manifest.

    `shapes` is "static" (a ladder of sizes up to `max_seconds` of audio with prompt) or "dynamic";
    `storage` is "float32" or "float16" (stored half, computed float32). `presets` is a file of
    solver presets (`bundle.preset_file`); without it the checkpoint's alone is written, and the
    flow is made so that a search can find more. Nothing appears at `output` unless every graph
    agrees with torch.
    Raises: UsageError, CheckpointError, ParityError, BundleError, MissingExtraError.
    """
    _require_extra()
    if shapes not in {"static", "dynamic"}:
        raise UsageError(f"unknown shapes {shapes!r}", "choose static or dynamic")
    if storage not in {"float32", "float16"}:
        raise UsageError(f"unknown storage {storage!r}", "choose float32 or float16")
    given = read_preset_file(presets) if presets else None
    checkpoint = open_checkpoint(folder, speech_lm=speech_lm, front_end=front_end)
    config = checkpoint.config
    synthesis = synthesis_settings(checkpoint.generation, config, given.presets if given else None)
    frame_rate = config.token_frame_rate * config.flow.token_mel_ratio
    limit = checkpoint.generation.fixed_noise_frames / frame_rate
    if not _MIN_SECONDS <= max_seconds <= limit:
        raise UsageError(
            f"--max-seconds {max_seconds:g} is out of range",
            f"choose {_MIN_SECONDS:g} to {limit:g}, prompt included",
        )

    import torch

    from cosyvoice_cpu.export import components as parts

    torch.set_num_threads(threads)
    settings = parts.ExportSettings(
        static=shapes == "static",
        half=storage == "float16",
        max_frames=round(max_seconds * frame_rate),
        threads=threads,
        times=np.array(synthesis.solver_times, np.float32),
    )
    with BundleWriter(output, overwrite, needed_bytes(checkpoint, half=settings.half)) as writer:
        drafts: dict[ComponentName, ComponentDraft] = {}
        progress("speech_lm", 0.0)
        drafts["speech_lm"] = parts.write_speech_lm(checkpoint, writer, settings, progress)
        progress("speech_lm", 1.0)
        parts.release()
        drafts |= parts.write_flow(checkpoint, writer, settings, progress)
        parts.release()
        progress("vocoder", 0.0)
        drafts["vocoder"] = parts.write_vocoder(checkpoint, writer, settings, progress)
        parts.release()
        if front_end:
            progress("front end", 0.0)
            drafts |= parts.copy_front_end(checkpoint, writer)
        progress("digests", 0.0)
        manifest = writer.finish(
            generation=checkpoint.generation.name,
            source=_source(checkpoint),
            audio=audio_settings(config),
            components=drafts,
            synthesis=synthesis,
            quality=Quality(results=given.results if given else [], forced=False),
        )
        progress("digests", 1.0)
    return manifest


def needed_bytes(checkpoint: Checkpoint, *, half: bool) -> int:
    """What the bundle takes on disk, to be compared with what is free before any work.

    Weights are counted as they lie in the official files, in float32 (a checkpoint that is stored
    half needs twice as much: its full disk is found when it is full).
    """
    sizes = {file: checkpoint.path(file).stat().st_size for file in checkpoint.files}
    weights = sum(size for file, size in sizes.items() if file.endswith(".pt"))
    return sum(sizes.values()) - (weights // 2 if half else 0) + _GRAPHS_BYTES


def _require_extra() -> None:
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
        import torch  # noqa: F401
    except ImportError as error:
        raise library_error(error, f"exporting needs {error.name}") from None


def _source(checkpoint: Checkpoint) -> Source:
    return Source(
        name=checkpoint.folder.resolve().name,
        files={
            file: SourceFile(size=digest.size, sha256=digest.sha256)
            for file, digest in checkpoint.digests().items()
        },
    )
