"""Where the stage API is opened: the torch networks of a checkpoint, or the engines of a bundle.

    stages = load_reference("checkpoint/", threads=1)  # torch, float32, no ONNX Runtime
    stages = load_bundle("bundle/", threads=1)         # the bundle's engines, no torch

Both return an object with the methods of `cosyvoice_cpu.stage_api.Stages`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cosyvoice_cpu.stage_api import Stages

if TYPE_CHECKING:
    from cosyvoice_cpu.runtime.ladder import Engines


def load_reference(checkpoint: str | Path, threads: int = 1, *, speech_lm: str = "base") -> Stages:
    """The torch float32 networks of an official checkpoint folder.

    Raises: CheckpointError if the folder is incomplete or damaged, MissingExtraError without torch.
    """
    from cosyvoice_cpu.networks.reference_stages import ReferenceStages

    return ReferenceStages.load(Path(checkpoint), threads=threads, speech_lm=speech_lm)


def load_bundle(bundle: str | Path, threads: int = 1, *, engines: Engines | None = None) -> Stages:
    """The engines of a bundle. Imports no torch. Raises: BundleError, ManifestError.

    `engines` take the place of the manifest's for single components, each an
    `cosyvoice_cpu.runtime.graph.Engine` or the name of one.
    """
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages

    return BundleStages.load(Path(bundle), threads=threads, engines=engines)
