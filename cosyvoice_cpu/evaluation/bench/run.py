"""One table for all engines: every row in its own process, repetitions in turn, medians and spread.

Rows are measured A B C, A B C, ..., so that whatever else the machine does hits all of them alike.
A whole request is computed once per row, as warm-up and for the check of its audio; a repetition
then times the prefill, a few decoded tokens, a few solver steps and the vocoder, and the request's
time follows: prefill + tokens * s per token + condition + steps * s per step + vocoder.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cosyvoice_cpu.bundle.stale_files import scratch_folder
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import CosyVoiceError, UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, UnavailableError
from cosyvoice_cpu.evaluation.bench.peak_throughput import (
    PeakThroughput,
    measure_peak_in_own_process,
)
from cosyvoice_cpu.evaluation.bench.pool import BenchProcess
from cosyvoice_cpu.evaluation.bench.roofline import least_seconds
from cosyvoice_cpu.evaluation.bench.smoke_checks import (
    Results,
    differences,
    guidance_problem,
    problem,
)
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.progress import Notify, no_notice
from cosyvoice_cpu.system.memory import ResidentMemory
from cosyvoice_cpu.system.page_cache import drop_from_cache

# What one repetition yields, as columns; lower is better for each.
METRICS = ("prefill_s", "token_ms", "step_s", "speech_lm_s", "flow_s", "vocoder_s", "rtf")
_OVER_LEAST = 1.6  # typical time over the least time
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
class BenchRow:
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
    guidance: float | None = None  # share of the velocity that it changes; None: there is none
    least_seconds: dict[str, float] = field(default_factory=dict)  # per stage, by the roofline


@dataclass(frozen=True)
class Bench:
    """All rows, and what they were measured with."""

    workload: Workload
    threads: int
    repeat: int
    peak: PeakThroughput
    rows: list[BenchRow]

    @property
    def refused(self) -> list[BenchRow]:
        """Rows whose audio was wrong."""
        return [row for row in self.rows if row.status == "refused"]


def run_bench(
    specs: Sequence[EngineSpec],
    workload: Workload,
    *,
    threads: int,
    repeat: int = 3,
    config: CheckpointConfig | None = None,
    peak: PeakThroughput | None = None,
    measure_loading: bool = True,
    notify: Notify = no_notice,
) -> Bench:
    """Measure `specs` in one alternating run.

    `config` gives the sizes of the model, for the least time that its work can take; None leaves
    that out. `peak` is measured before and after the rows if not given. `notify` gets what is
    under way. A row that fails or computes nonsense is reported as such and does not stop the
    others. Raises: UsageError for a run without rows.
    """
    if not specs:
        raise UsageError(
            "there is nothing to measure", "give bundles, or --checkpoint, or --synthetic"
        )
    if repeat < 1:
        raise UsageError(f"{repeat} repetitions measure nothing", "give 1 or more")
    measured = peak is None
    bfloat16 = any(spec.variant == "bfloat16" for spec in specs)
    if peak is None:
        notify("measuring what this machine reaches at best")
        peak = measure_peak_in_own_process(threads, bfloat16=bfloat16)
    if config is not None:
        minutes = expected_seconds(specs, config, workload, peak, repeat) / 60
        notify(f"{len(specs)} rows, {repeat} repetitions: about {minutes:.0f} minutes")
    rows = [BenchRow(spec, bytes=spec.bytes) for spec in specs]
    if measure_loading:
        for row in rows:
            notify(f"{row.spec.name}: loading, cold and warm")
            _measure_loading(row, workload, threads)
    _measure_in_turn(rows, workload, threads, repeat, notify)
    if measured:
        peak = peak.best_of(measure_peak_in_own_process(threads, bfloat16=bfloat16))
    if config is not None:
        for row in rows:
            with contextlib.suppress(CosyVoiceError):  # such a row has no figures
                request = row.spec.request(workload)
                row.least_seconds = least_seconds(row.spec, config, request, peak)
    return Bench(workload, threads, repeat, peak, rows)


def expected_seconds(
    specs: Sequence[EngineSpec],
    config: CheckpointConfig,
    workload: Workload,
    peak: PeakThroughput,
    repeat: int,
) -> float:
    """Roughly how long `run_bench` takes, from the least time of the work."""
    total = 0.0
    for spec in specs:
        try:
            request = spec.request(workload)
            least = least_seconds(spec, config, request, peak)
        except CosyVoiceError:
            continue  # the row says what is wrong when it is measured
        if not least:
            continue
        flow, vocoder = least["flow"], least["vocoder"]
        step, token = flow / request.guided_steps, least["speech_lm"] / request.tokens
        repetition = (1 + workload.solver_steps) * step + request.decode_tokens * token + vocoder
        loading = 3 * spec.bytes / _LOADED_BYTES_PER_SECOND
        total += _OVER_LEAST * (flow + vocoder + repeat * repetition) + loading
    return total


def _measure_loading(row: BenchRow, workload: Workload, threads: int) -> None:
    """Seconds from starting a process until each stage has answered a short request."""
    with contextlib.suppress(CosyVoiceError):  # the row says what is wrong when it is measured
        if drop_from_cache(row.spec.files):
            row.load_cold_s = _load_once(row.spec, workload, threads)
        else:
            _load_once(row.spec, workload, threads)
        row.load_warm_s = _load_once(row.spec, workload, threads)


def _load_once(spec: EngineSpec, workload: Workload, threads: int) -> float:
    with BenchProcess(spec, workload, threads) as process:
        process.ask("load")
        process.ask("touch")
        return time.perf_counter() - process.started


def _measure_in_turn(
    rows: Sequence[BenchRow], workload: Workload, threads: int, repeat: int, notify: Notify
) -> None:
    samples: dict[int, list[dict[str, float]]] = {}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch_folder("bench"))
        processes: dict[int, BenchProcess] = {}
        first: Path | None = None
        for index, row in enumerate(rows):
            notify(f"{row.spec.name}: the whole request once")
            process = stack.enter_context(BenchProcess(row.spec, workload, threads))
            results = folder / str(index)
            results.mkdir()
            with _failures_noted(row):
                _check_audio(row, process, results, first or results, workload)
            if row.status == "ok":
                processes[index] = process
                first = first or results
            else:
                process.end()
        for repetition in range(repeat):
            notify(f"repetition {repetition + 1} of {repeat}")
            for index, process in list(processes.items()):
                with _failures_noted(rows[index]):
                    samples.setdefault(index, []).append(process.ask("measure"))
                if rows[index].status != "ok":
                    process.end()
                    del processes[index]
        for index, process in processes.items():
            rows[index].memory = process.end()
            request = rows[index].spec.request(workload)
            rows[index].metrics = _statistics(samples[index], request)


def _check_audio(
    row: BenchRow, process: BenchProcess, folder: Path, first: Path, workload: Workload
) -> None:
    """Compute the whole request; refuse the row if the result is not what it should be."""
    process.ask("load")
    shared = first / "mel.npy"
    answer = process.ask(
        "audio", folder=str(folder), shared_mel=str(shared) if shared.exists() else None
    )
    results, reference = Results.read(folder), Results.read(first)
    reason = problem(results, reference, row.spec.request(workload).samples)
    row.guidance = answer["guidance"]
    if reason := reason or guidance_problem(row.guidance):
        row.status, row.note = "refused", reason
    else:
        row.differences = differences(results, reference)


@contextlib.contextmanager
def _failures_noted(row: BenchRow) -> Any:
    try:
        yield
    except UnavailableError as error:
        row.status, row.note = "unavailable", error.what
    except CosyVoiceError as error:
        row.status, row.note = "refused", error.what


def _statistics(samples: Sequence[dict[str, float]], request: Request) -> dict[str, Statistic]:
    derived = [_derived(sample, request) for sample in samples]
    return {name: Statistic.of([values[name] for values in derived]) for name in METRICS}


def request_seconds(sample: dict[str, float], request: Request) -> float:
    """Seconds of a whole request, from what one repetition timed."""
    return _derived(sample, request)["rtf"] * request.workload.seconds


def _derived(sample: dict[str, float], request: Request) -> dict[str, float]:
    """The columns of one repetition, from what the process timed."""
    lm = sample["prefill_s"] + (request.tokens - 1) * sample["token_s"]
    steps = sample["first_step_s"] + (request.guided_steps - 1) * sample["step_s"]
    flow = sample["condition_s"] + steps
    return {
        "prefill_s": sample["prefill_s"],
        "token_ms": 1000 * sample["token_s"],
        "step_s": sample["step_s"],
        "speech_lm_s": lm,
        "flow_s": flow,
        "vocoder_s": sample["vocoder_s"],
        "rtf": (lm + flow + sample["vocoder_s"]) / request.workload.seconds,
    }


def as_json(bench: Bench) -> dict[str, Any]:
    """The whole result as plain values."""
    return {
        "workload": bench.workload.as_json(),
        "threads": bench.threads,
        "repeat": bench.repeat,
        "peak_throughput": bench.peak.as_json(),
        "rows": [_row_json(row) for row in bench.rows],
    }


def _row_json(row: BenchRow) -> dict[str, Any]:
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
        "guidance": row.guidance,
        "least_s": row.least_seconds,
    }
