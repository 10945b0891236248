"""What a bench runs on where it is not given: a random checkpoint, and bundles made of one.

What is to be kept is made in a work folder, under names that say what it was made of, and is used
again by the next run. What is not goes with the run, or with the next one if it was killed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import output_error
from cosyvoice_cpu.bundle.stale_files import partial_folder, remove_stale_files
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, Variant
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.progress import Notify
from cosyvoice_cpu.system.cache_folder import cache_folder

# Rows of the checkpoint itself, by name. Those of bundles are the caller's `BundleMaker`s.
TORCH_ROWS: dict[str, Variant] = {"eager": "float32", "bf16": "bfloat16", "compile": "compile"}
_LEAST_SECONDS = 20  # that graphs are made for, so that shorter requests use the same bundle
SYNTHETIC_GENERATIONS = ("cosyvoice3",)


@dataclass(frozen=True)
class BundleMaker:
    """How the bundle of a row is made. Exporters and quantizers stand above this package."""

    make: Callable[[Path, Path], object]  # (checkpoint or bundle, folder to be made)
    source: str | None = None  # the row whose bundle it is made of; None: the checkpoint


def seconds_to_hold(workload: Workload) -> float:
    """The audio with prompt that graphs must hold: the same for all short workloads."""
    return float(max(ceil(workload.seconds + workload.prompt_seconds), _LEAST_SECONDS))


class BenchInputs:
    """A work folder, and what is made in it. A context manager: what is not kept goes with it."""

    def __init__(
        self,
        folder: Path | None,
        workload: Workload,
        makers: Mapping[str, BundleMaker],
        notify: Notify,
        *,
        keep: bool = False,
    ) -> None:
        """`folder` None takes `bench` in the user's cache; `makers` by the name of their row.

        Raises: UsageError without either.
        """
        cache = cache_folder()
        if folder is None and cache is None:
            raise UsageError("this user has no cache folder to work in", "give --work DIR")
        self._folder = folder or Path(cache or "", "bench")
        self._max_seconds = seconds_to_hold(workload)
        self._makers = makers
        self._notify = notify
        self._keep = keep
        self._stack = contextlib.ExitStack()
        self._made_in: Path | None = None

    def __enter__(self) -> BenchInputs:
        remove_stale_files(self._unkept)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def _unkept(self) -> Path:
        """Beside this the folder lies whose content goes with the run."""
        return self._folder / "bench"

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

        return self._made_once(
            f"synthetic-{generation}",
            lambda path: make_synthetic_checkpoint(path, size="full", notify=self._notify),
        )

    def rows(self, names: Sequence[str], checkpoint: Path | None) -> list[EngineSpec]:
        """The rows called `names` for `checkpoint`.

        Raises: UsageError for an unknown name, or without a checkpoint to make a row of.
        """
        known = (*TORCH_ROWS, *self._makers)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UsageError(
                f"there is no row {unknown[0]!r}", f"rows: {', '.join(known)}, or bundles"
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
                path = self._bundle(name, checkpoint)
                specs.append(EngineSpec(name, "bundle", str(path)))
        return specs

    def _bundle(self, row: str, checkpoint: Path) -> Path:
        name = f"{Path(os.path.realpath(checkpoint)).name}-{self._key(checkpoint)}-{row}"
        maker = self._makers[row]
        source = self._bundle(maker.source, checkpoint) if maker.source else checkpoint
        return self._made_once(name, lambda path: maker.make(source, path))

    def _made_once(self, name: str, make: Callable[[Path], object]) -> Path:
        """What was kept, or is made now; `make` writes beside its path and renames.

        So what exists is whole.
        """
        kept = self._folder / name
        if kept.exists():
            return kept
        path = self._place() / name
        if not path.exists():
            self._notify(f"making {path}")
            make(path)
        return path

    def _place(self) -> Path:
        """Where things are made."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._keep:
                return self._folder
            if self._made_in is None:
                self._made_in = self._stack.enter_context(partial_folder(self._unkept))
            return self._made_in
        except OSError as error:
            raise output_error(self._folder, error) from error

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

    None if neither fits; then no roofline is stated. Raises: CheckpointError for a broken folder.
    """
    if checkpoint is not None:
        from cosyvoice_cpu.checkpoint.folder import open_checkpoint

        return open_checkpoint(checkpoint, front_end=False).config
    from cosyvoice_cpu.checkpoint.sizes import FULL
    from cosyvoice_cpu.evaluation.bench.roofline import official_size

    return FULL if all(official_size(bundle, FULL) for bundle in bundles) else None
