"""What a bench runs on where it is not given: a random checkpoint, and bundles made of one.

Everything is made in a work folder, under names that say what it was made of, and is used again by
the next run. What a run made itself it can remove again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from math import ceil
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import output_error
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, Variant
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.progress import Notify
from cosyvoice_cpu.system.cache_folder import cache_folder

# Rows by name: torch variants of the checkpoint, then bundles that are made of it.
TORCH_ROWS: dict[str, Variant] = {"eager": "float32", "bf16": "bfloat16", "compile": "compile"}
MADE_ROWS = ("onnx", "dynamic", "int8")
ROW_NAMES = (*TORCH_ROWS, *MADE_ROWS)
_LEAST_SECONDS = 20  # that graphs are made for, so that shorter requests use the same bundle
SYNTHETIC_GENERATIONS = ("cosyvoice3",)


class Materials:
    """A work folder, and what was made in it by this object."""

    def __init__(
        self,
        folder: Path | None,
        workload: Workload,
        threads: int,
        notify: Notify,
        quantize: Callable[[Path, Path, bool], object],
    ) -> None:
        """`folder` None takes `bench` in the user's cache.

        `quantize(source, output, force)` makes the bundle of row int8 of the float32 one: a bench
        measures what others make, so it is given the way.

        Raises: UsageError without either.
        """
        cache = cache_folder()
        if folder is None and cache is None:
            raise UsageError("this user has no cache folder to work in", "give --work DIR")
        self._folder = folder or Path(cache or "", "bench")
        needed = ceil(workload.seconds + workload.prompt_seconds)
        self._max_seconds = float(max(needed, _LEAST_SECONDS))
        self._threads = threads
        self._notify = notify
        self._quantize = quantize
        self._made: list[Path] = []

    def synthetic_checkpoint(self, generation: str) -> Path:
        """The full-size random checkpoint of a generation, made if absent (3.4 GB).

        Raises: UsageError for an unknown generation, OutputError for a full disk.
        """
        if generation not in SYNTHETIC_GENERATIONS:
            raise UsageError(
                f"there is no synthetic checkpoint {generation!r}",
                f"known: {', '.join(SYNTHETIC_GENERATIONS)}",
            )
        from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint

        path = self._folder / f"synthetic-{generation}"
        return self._made_once(
            path, lambda: make_synthetic_checkpoint(path, size="full", progress=self._notify)
        )

    def rows(
        self, names: Sequence[str], checkpoint: Path | None, *, force: bool = False
    ) -> list[EngineSpec]:
        """The rows of ROW_NAMES for `checkpoint`; `force` takes an INT8 bundle past its gate.

        Raises: UsageError for an unknown name, or without a checkpoint to make a row of.
        """
        unknown = [name for name in names if name not in ROW_NAMES]
        if unknown:
            raise UsageError(
                f"there is no row {unknown[0]!r}", f"rows: {', '.join(ROW_NAMES)}, or bundles"
            )
        specs = []
        for name in names:
            if checkpoint is None:
                raise UsageError(
                    f"the row {name!r} needs a checkpoint", "give --checkpoint or --synthetic"
                )
            if name in TORCH_ROWS:
                specs.append(EngineSpec(name, "reference", str(checkpoint), TORCH_ROWS[name]))
            else:
                path = self._bundle(name, checkpoint, force)
                specs.append(EngineSpec(name, "bundle", str(path)))
        return specs

    def remove(self) -> None:
        """Delete what this object made; what was there before stays."""
        for path in self._made:
            shutil.rmtree(path, ignore_errors=True)
        self._made.clear()

    def _bundle(self, row: str, checkpoint: Path, force: bool) -> Path:
        path = (
            self._folder
            / f"{Path(os.path.realpath(checkpoint)).name}-{self._key(checkpoint)}-{row}"
        )
        if row == "int8":
            source = self._bundle("onnx", checkpoint, force)
            return self._made_once(path, lambda: self._quantize(source, path, force))
        from cosyvoice_cpu.export.exporter import export_checkpoint

        return self._made_once(
            path,
            lambda: export_checkpoint(
                checkpoint,
                path,
                shapes="dynamic" if row == "dynamic" else "static",
                max_seconds=self._max_seconds,
                front_end=False,
                threads=self._threads,
            ),
        )

    def _made_once(self, path: Path, make: Callable[[], object]) -> Path:
        """The makers write beside `path` and rename, so what exists is whole."""
        if not path.exists():
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise output_error(self._folder, error) from error
            self._notify(f"making {path}")
            make()
            self._made.append(path)
        return path

    def _key(self, checkpoint: Path) -> str:
        """Changes with the checkpoint's files and the lengths that the graphs must hold."""
        text = [os.path.realpath(checkpoint), str(self._max_seconds)]
        for file in sorted(checkpoint.rglob("*")):
            if file.is_file():
                status = file.stat()
                text.append(f"{file.name} {status.st_size} {status.st_mtime_ns}")
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:12]


def default_rows(checkpoint: Path | None, bundles: Sequence[Path]) -> list[str]:
    """The rows of a checkpoint if none are chosen: bundles are made only if none is given."""
    if checkpoint is None:
        return []
    return [*TORCH_ROWS] if bundles else [*TORCH_ROWS, "onnx", "int8"]


def config_of(checkpoint: Path | None, bundles: Sequence[Path]) -> CheckpointConfig | None:
    """The sizes of the model that all rows hold: the checkpoint's, or the official ones.

    None if neither fits; then no bounds are stated. Raises: CheckpointError for a broken folder.
    """
    if checkpoint is not None:
        from cosyvoice_cpu.checkpoint.folder import open_checkpoint

        return open_checkpoint(checkpoint, front_end=False).config
    from cosyvoice_cpu.checkpoint.sizes import FULL
    from cosyvoice_cpu.evaluation.bench.roofline import official_size

    return FULL if all(official_size(bundle, FULL) for bundle in bundles) else None
