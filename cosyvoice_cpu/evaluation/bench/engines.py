"""What a bench row is made of: a torch checkpoint or a bundle, and how it is computed.

`load_engine` runs inside a bench process; only the torch variants import torch.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.errors import CosyVoiceError, first_line
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.stage_api import Stages

Kind = Literal["reference", "bundle"]
Variant = Literal["float32", "bfloat16", "compile"]


class UnavailableError(CosyVoiceError):
    """This machine or installation can't compute the row; the others go on."""


@dataclass(frozen=True)
class EngineSpec:
    """One row: its name in the table, and where its networks come from."""

    name: str
    kind: Kind
    path: str
    variant: Variant = "float32"
    preset: str = DEFAULT_PRESET  # of the flow's solver
    engine: str | None = None  # of a bundle's flow and vocoder; None: what the bundle says

    def as_json(self) -> dict[str, str | None]:
        """The fields, for a bench process's command line."""
        return asdict(self)

    @property
    def files(self) -> list[Path]:
        """The files that loading may read."""
        return sorted(path for path in Path(self.path).rglob("*") if path.is_file())

    @property
    def bytes(self) -> int:
        """Size on disk."""
        return sum(path.stat().st_size for path in self.files)

    def request(self, workload: Workload) -> Request:
        """`workload` by the manifest or configuration.

        Raises: BundleError, CheckpointError, UsageError for a preset that there is not.
        """
        if self.kind == "bundle":
            manifest = read_manifest(Path(self.path))
            manifest.synthesis.preset(self.preset)
            return Request(workload, manifest.audio, manifest.synthesis, self.preset)
        from cosyvoice_cpu.checkpoint.folder import open_checkpoint
        from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings

        checkpoint = open_checkpoint(Path(self.path), front_end=False)
        config = checkpoint.config
        synthesis = synthesis_settings(checkpoint.generation, config)
        return Request(workload, audio_settings(config), synthesis)


def bundle_specs(
    bundles: Sequence[Path],
    presets: Sequence[str] = (DEFAULT_PRESET,),
    engines: Sequence[str | None] = (None,),
) -> list[EngineSpec]:
    """A row per bundle, preset and engine.

    It is named after the bundle's folder, or its path where two folders share a name, the preset if
    it is not the default, and the engine if one is named.
    """
    names = [Path(os.path.realpath(path)).name for path in bundles]
    rows = []
    for folder, path in zip(names, bundles, strict=True):
        name = folder if names.count(folder) == 1 else str(path)
        for preset in presets:
            for engine in engines:
                said = [name, "" if preset == DEFAULT_PRESET else preset, engine or ""]
                label = " ".join(filter(None, said))
                rows.append(EngineSpec(label, "bundle", str(path), preset=preset, engine=engine))
    return rows


@dataclass(frozen=True)
class Engine:
    """Loaded stages, and the context in which to call them."""

    stages: Stages
    autocast: bool

    @contextlib.contextmanager
    def computing(self, stage: str) -> Iterator[None]:
        """Around every call of `stage`: the vocoder has complex numbers, which have no BF16."""
        if not self.autocast or stage == "vocoder":
            yield
            return
        import torch

        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield


def load_engine(spec: EngineSpec, threads: int) -> Engine:
    """Load a row's networks. Raises: CosyVoiceError, UnavailableError for a variant."""
    if spec.kind == "bundle":
        from cosyvoice_cpu.bundle.reader import open_bundle
        from cosyvoice_cpu.evaluation.engine_choice import chosen_engines
        from cosyvoice_cpu.runtime.bundle_stages import BundleStages

        bundle = open_bundle(Path(spec.path))
        engines = chosen_engines(bundle, spec.engine, threads) if spec.engine else None
        opened = BundleStages(bundle, threads, engines=engines, keep_prepacked=True)  # as `synth`
        return Engine(opened, autocast=False)
    from cosyvoice_cpu.networks.reference_stages import ReferenceStages

    stages = ReferenceStages.load(Path(spec.path), threads=threads)
    if spec.variant == "bfloat16":
        _store_bfloat16(stages)
    if spec.variant == "compile":
        _compile(stages)
    return Engine(stages, autocast=spec.variant == "bfloat16")


def _store_bfloat16(stages: Any) -> None:
    """Keep the matrices of LM and flow in BF16: autocast would convert them at every call."""
    import torch
    from torch import nn

    for network in (stages.speech_lm, stages.flow_encoder, stages.flow_estimator):
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv1d):
                module.to(torch.bfloat16)


def _compile(stages: Any) -> None:
    """Compile what repeats at one shape: the estimator's blocks and the vocoder's residual blocks.

    Compiled one by one, equal blocks share their code; the LM, whose cache grows by a position per
    token, stays eager. Raises: UnavailableError where torch finds no C++ compiler.
    """
    import torch

    try:
        from torch._inductor.cpp_builder import get_cpp_compiler

        get_cpp_compiler()
    except Exception as error:  # InvalidCxxCompiler, or another torch without this module
        raise UnavailableError(
            f"torch.compile finds no C++ compiler ({first_line(error)})",
            "install g++, or leave out this row",
        ) from error
    torch._dynamo.config.cache_size_limit = 64
    vocoder = stages.vocoder
    for module in (
        *stages.flow_estimator.transformer_blocks,
        *vocoder.resblocks,
        *vocoder.source_resblocks,
    ):
        module.compile(dynamic=False)
