"""One table for all engines: every row in its own process, repetitions in turn, medians and spread.

Rows are measured A B C, A B C, ..., so that whatever else the machine does hits all of them alike.
A whole request is computed once per row, as warm-up and for the check of its audio; a repetition
then times the prefill, a few decoded tokens, a few solver steps and the vocoder, and the request's
time follows: prefill + tokens * s per token + condition + 10 * s per step + vocoder.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import CosyVoiceError, UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, UnavailableError
from cosyvoice_cpu.evaluation.bench.peak_throughput import Ceilings, measure_ceilings_apart
from cosyvoice_cpu.evaluation.bench.pool import WorkerProcess
from cosyvoice_cpu.evaluation.bench.roofline import stage_bounds
from cosyvoice_cpu.evaluation.bench.smoke_checks import Results, differences, problem
from cosyvoice_cpu.evaluation.bench.workload import (
    FRAMES_PER_TOKEN,
    SAMPLES_PER_FRAME,
    SOLVER_STEPS,
    Workload,
)
from cosyvoice_cpu.progress import Notify, no_notice
from cosyvoice_cpu.system.memory import ResidentMemory
from cosyvoice_cpu.system.page_cache import drop_from_cache

# What one repetition yields, as columns; lower is better for each.
METRICS = ("prefill_s", "token_ms", "step_s", "speech_lm_s", "flow_s", "vocoder_s", "rtf")
_OVER_BOUND = 1.6  # typical time over the least time
_LOADED_BYTES_PER_SECOND = 0.5e9


@dataclass(frozen=True)
class Statistic:
    """Median of the repetitions, and the fastest and slowest of them."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Statistic:
        """At least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass
class Row:
    """One engine's figures. `status` is "ok", "refused" (its audio is wrong) or "unavailable"."""

    spec: EngineSpec
    status: str = "ok"
    note: str = ""
    bytes: int = 0
    metrics: dict[str, Statistic] = field(default_factory=dict)  # name of METRICS
    load_cold_s: float | None = None  # None: its files could not be dropped from the page cache
    load_warm_s: float | None = None
    memory: ResidentMemory = field(default_factory=ResidentMemory)
    differences: dict[str, float] = field(default_factory=dict)  # from the first row
    bounds: dict[str, float] = field(default_factory=dict)  # least seconds per stage


@dataclass(frozen=True)
class Bench:
    """All rows, and what they were measured with."""

    workload: Workload
    threads: int
    repeat: int
    ceilings: Ceilings
    rows: list[Row]

    @property
    def refused(self) -> list[Row]:
        """Rows whose audio was wrong."""
        return [row for row in self.rows if row.status == "refused"]


def run_bench(
    specs: Sequence[EngineSpec],
    workload: Workload,
    *,
    threads: int,
    repeat: int = 3,
    config: CheckpointConfig | None = None,
    ceilings: Ceilings | None = None,
    measure_loading: bool = True,
    notify: Notify = no_notice,
) -> Bench:
    """Measure `specs` in one alternating run.

    `config` gives the sizes of the model, for the least time that its work can take; None leaves
    that out. `ceilings` are measured before and after the rows if not given. `notify` gets what is
    under way. A row that fails or computes nonsense is reported as such and does not stop the
    others. Raises: UsageError for a run without rows.
    """
    if not specs:
        raise UsageError(
            "there is nothing to measure", "give bundles, or --checkpoint, or --synthetic"
        )
    if repeat < 1:
        raise UsageError(f"{repeat} repetitions measure nothing", "give 1 or more")
    measured = ceilings is None
    if ceilings is None:
        notify("measuring what this machine reaches at best")
        ceilings = measure_ceilings_apart(threads)
    if config is not None:
        minutes = expected_seconds(specs, config, workload, ceilings, repeat) / 60
        notify(f"{len(specs)} rows, {repeat} repetitions: about {minutes:.0f} minutes")
    rows = [Row(spec, bytes=spec.bytes) for spec in specs]
    if measure_loading:
        for row in rows:
            notify(f"{row.spec.name}: loading, cold and warm")
            _measure_loading(row, workload, threads)
    _measure_in_turn(rows, workload, threads, repeat, notify)
    if measured:
        ceilings = ceilings.best_of(measure_ceilings_apart(threads))
    if config is not None:
        for row in rows:
            row.bounds = stage_bounds(row.spec, config, workload, ceilings)
    return Bench(workload, threads, repeat, ceilings, rows)


def expected_seconds(
    specs: Sequence[EngineSpec],
    config: CheckpointConfig,
    workload: Workload,
    ceilings: Ceilings,
    repeat: int,
) -> float:
    """Roughly how long `run_bench` takes, from the least time of the work."""
    total = 0.0
    for spec in specs:
        bounds = stage_bounds(spec, config, workload, ceilings)
        if not bounds:
            continue
        flow, vocoder = bounds["flow"], bounds["vocoder"]
        step, token = flow / SOLVER_STEPS, bounds["speech_lm"] / workload.tokens
        repetition = workload.solver_steps * step + workload.decode_tokens * token + vocoder
        loading = 3 * spec.bytes / _LOADED_BYTES_PER_SECOND
        total += _OVER_BOUND * (flow + vocoder + repeat * repetition) + loading
    return total


def _measure_loading(row: Row, workload: Workload, threads: int) -> None:
    """Seconds from starting a process until each stage has answered a short request."""
    with contextlib.suppress(CosyVoiceError):  # the row says what is wrong when it is measured
        if drop_from_cache(row.spec.files):
            row.load_cold_s = _load_once(row.spec, workload, threads)
        else:
            _load_once(row.spec, workload, threads)
        row.load_warm_s = _load_once(row.spec, workload, threads)


def _load_once(spec: EngineSpec, workload: Workload, threads: int) -> float:
    with WorkerProcess(spec, workload, threads) as worker:
        worker.ask("load")
        worker.ask("touch")
        return time.perf_counter() - worker.started


def _measure_in_turn(
    rows: Sequence[Row], workload: Workload, threads: int, repeat: int, notify: Notify
) -> None:
    samples: dict[int, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        workers: dict[int, WorkerProcess] = {}
        first: Path | None = None
        for index, row in enumerate(rows):
            notify(f"{row.spec.name}: the whole request once")
            worker = stack.enter_context(WorkerProcess(row.spec, workload, threads))
            results = folder / str(index)
            results.mkdir()
            with _failures_noted(row):
                _check_audio(row, worker, results, first or results, workload)
            if row.status == "ok":
                workers[index] = worker
                first = first or results
            else:
                worker.end()
        for repetition in range(repeat):
            notify(f"repetition {repetition + 1} of {repeat}")
            for index, worker in list(workers.items()):
                with _failures_noted(rows[index]):
                    samples.setdefault(index, []).append(worker.ask("measure"))
                if rows[index].status != "ok":
                    worker.end()
                    del workers[index]
        for index, worker in workers.items():
            rows[index].memory = worker.end()
            rows[index].metrics = _statistics(samples[index], workload)


def _check_audio(
    row: Row, worker: WorkerProcess, folder: Path, first: Path, workload: Workload
) -> None:
    """Compute the whole request; refuse the row if the result is not what it should be."""
    worker.ask("load")
    shared = first / "mel.npy"
    worker.ask("audio", folder=str(folder), shared_mel=str(shared) if shared.exists() else None)
    results, reference = Results.read(folder), Results.read(first)
    samples = workload.tokens * FRAMES_PER_TOKEN * SAMPLES_PER_FRAME
    if reason := problem(results, reference, samples):
        row.status, row.note = "refused", reason
    else:
        row.differences = differences(results, reference)


@contextlib.contextmanager
def _failures_noted(row: Row) -> Any:
    try:
        yield
    except UnavailableError as error:
        row.status, row.note = "unavailable", error.what
    except CosyVoiceError as error:
        row.status, row.note = "refused", error.what


def _statistics(samples: Sequence[dict[str, float]], workload: Workload) -> dict[str, Statistic]:
    derived = [_derived(sample, workload) for sample in samples]
    return {name: Statistic.of([values[name] for values in derived]) for name in METRICS}


def request_seconds(sample: dict[str, float], workload: Workload) -> float:
    """Seconds of a whole request, from what one repetition timed."""
    return _derived(sample, workload)["rtf"] * workload.seconds


def _derived(sample: dict[str, float], workload: Workload) -> dict[str, float]:
    """The columns of one repetition, from what the worker timed."""
    lm = sample["prefill_s"] + (workload.tokens - 1) * sample["token_s"]
    flow = sample["condition_s"] + SOLVER_STEPS * sample["step_s"]
    return {
        "prefill_s": sample["prefill_s"],
        "token_ms": 1000 * sample["token_s"],
        "step_s": sample["step_s"],
        "speech_lm_s": lm,
        "flow_s": flow,
        "vocoder_s": sample["vocoder_s"],
        "rtf": (lm + flow + sample["vocoder_s"]) / workload.seconds,
    }


def as_json(bench: Bench) -> dict[str, Any]:
    """The whole result as plain values."""
    return {
        "workload": bench.workload.as_json(),
        "threads": bench.threads,
        "repeat": bench.repeat,
        "ceilings": bench.ceilings.as_json(),
        "rows": [_row_json(row) for row in bench.rows],
    }


def _row_json(row: Row) -> dict[str, Any]:
    return {
        "name": row.spec.name,
        "status": row.status,
        "note": row.note,
        "metrics": {
            name: {"median": value.median, "min": value.low, "max": value.high}
            for name, value in row.metrics.items()
        },
        "load_cold_s": row.load_cold_s,
        "load_warm_s": row.load_warm_s,
        "peak_rss_mb": row.memory.peak_mb,
        "anonymous_mb": row.memory.anonymous_mb,
        "file_mb": row.memory.file_mb,
        "bytes": row.bytes,
        "differences": row.differences,
        "bounds_s": row.bounds,
    }
