"""Loading a bundle on the engines that were chosen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages


def load_stages(
    path: Path,
    threads: int,
    engine: str | None,
    *,
    trust: bool = False,
    low_memory: bool = False,
) -> BundleStages:
    """The stages of the bundle at `path`, on `engine` or what `tune` found.

    Raises: as `open_bundle` and `chosen_engines`.
    """
    from cosyvoice_cpu.bundle.reader import open_bundle
    from cosyvoice_cpu.cli.messages import note
    from cosyvoice_cpu.evaluation.engine_choice import chosen_engines
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages

    bundle = open_bundle(path, trust=trust)
    engines = chosen_engines(bundle, engine, threads, note)
    return BundleStages(
        *(bundle, threads), low_memory=low_memory, engines=engines, keep_prepacked=True
    )
