"""The number of threads that is fastest on this machine, by trying.

Hyper-threads, quotas and shared caches make the best number hard to foresee. Each candidate has a
process of its own, and they are measured in turn like the rows of `bench`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.pool import BenchProcess
from cosyvoice_cpu.evaluation.bench.run import Statistic, request_seconds
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.progress import Notify, no_notice

_DENSE = 4  # every number up to here is tried, then steps
_STEP_SHARE = 1.3
_EQUAL_SHARE = 0.03  # fewer threads win over a gain of less than this
_SHORT = Workload(seconds=4.0, prompt_seconds=3.0, decode_tokens=16, solver_steps=1)


@dataclass(frozen=True)
class Candidate:
    """One number of threads, and what a short request took with it, in seconds."""

    threads: int
    seconds: Statistic


@dataclass(frozen=True)
class Tuning:
    """All candidates in ascending order, and the number to use."""

    candidates: list[Candidate]
    best: int


def thread_candidates(logical_cpus: int, default: int) -> list[int]:
    """Numbers worth trying: all up to 4, then a third more each time; default and all CPUs too."""
    numbers = {default, logical_cpus}
    number = 1
    while number <= logical_cpus:
        numbers.add(number)
        number = number + 1 if number < _DENSE else max(number + 1, int(number * _STEP_SHARE))
    return sorted(n for n in numbers if 1 <= n <= logical_cpus)


def tune_threads(
    bundle: Path, candidates: Sequence[int], *, repeat: int = 3, notify: Notify = no_notice
) -> Tuning:
    """Measure a short request (4 s of audio, 3 s of prompt) with each number of threads.

    `notify` gets what is under way.
    Raises: SynthesisError with the process's words if the bundle can't be loaded or is too short,
    UsageError without candidates or repetitions.
    """
    if not candidates or repeat < 1:
        raise UsageError("there is nothing to try", "give numbers of threads and 1 or more runs")
    spec = EngineSpec("", "bundle", str(bundle))
    request = spec.request(_SHORT)
    seconds: dict[int, list[float]] = {threads: [] for threads in candidates}
    with contextlib.ExitStack() as stack:
        processes = {}
        for threads in candidates:
            notify(f"loading with {threads} threads")
            named = replace(spec, name=f"{threads} threads")
            process = stack.enter_context(BenchProcess(named, _SHORT, threads))
            process.ask("load")
            process.ask("warm_up")
            processes[threads] = process
        for repetition in range(repeat):
            notify(f"repetition {repetition + 1} of {repeat}")
            for threads, process in processes.items():
                seconds[threads].append(request_seconds(process.ask("measure"), request))
    found = [Candidate(threads, Statistic.of(seconds[threads])) for threads in sorted(seconds)]
    return Tuning(found, choose(found))


def choose(candidates: Sequence[Candidate]) -> int:
    """The fewest threads whose median is within 3 % of the fastest."""
    fastest = min(candidate.seconds.median for candidate in candidates)
    return min(
        candidate.threads
        for candidate in candidates
        if candidate.seconds.median <= fastest * (1 + _EQUAL_SHARE)
    )
