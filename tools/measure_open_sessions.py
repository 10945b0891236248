"""What open sessions cost: memory and loading of ladder sizes, and speed beside idle ones.

    python -m tools.measure_open_sessions BUNDLE [--threads N]

The tables of `docs/performance.md`, section "Open sessions". Every case runs in a process of its
own. Loading is given in processor seconds, which other work on the machine hardly changes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.component_runner import repeatable_call
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.onnxruntime_engine import PREPACK_VARIABLE
from cosyvoice_cpu.system.memory import resident_memory
from tools.failures import reports_failures

_MODULE = "tools.measure_open_sessions"
_SECONDS = (8, 6, 4)  # of audio with prompt, 400, 300 and 200 mel frames in generation 3
_TOKENS = 24
_ROUNDS = 3
_IDLE_SECONDS = 1.0

Figures = dict[str, float]


def ladder_figures(bundle: Path, threads: int, sizes: int) -> Figures:
    """Memory and seconds with `sizes` sizes of the flow estimator open, each run once before."""
    stages = BundleStages.load(bundle, threads)
    before = resident_memory()
    first = [_step_seconds(stages, seconds) for seconds in _SECONDS[:sizes]]
    again = [_step_seconds(stages, seconds) for seconds in _SECONDS[:sizes]]
    after = resident_memory()
    return {
        "anonymous_mb": (after.anonymous_mb or 0) - (before.anonymous_mb or 0),
        "file_mb": (after.file_mb or 0) - (before.file_mb or 0),
        # What a size's first call takes beyond its second: opening, packing, first pages.
        "loading_cpu_s": max(sum(a.cpu - b.cpu for a, b in zip(first, again, strict=True)), 0.0),
        "step_s": again[0].wall,
    }


def idle_figures(bundle: Path, threads: int) -> Figures:
    """Speed per token of the speech LM alone, and with five more sessions open and used."""
    stages = BundleStages.load(bundle, threads)
    alone: list[float] = []
    beside: list[float] = []
    idle = 0.0
    for _ in range(_ROUNDS):
        alone.append(_token_seconds(stages))
        for seconds in _SECONDS:
            _step_seconds(stages, seconds)
        repeatable_call(stages, "waveform", _request(stages, 2.0).utterance)()
        beside.append(_token_seconds(stages))
        started = time.process_time()
        time.sleep(_IDLE_SECONDS)
        idle = max(idle, (time.process_time() - started) / _IDLE_SECONDS)
        stages.release("flow")
        stages.release("vocoder")
    return {
        "alone_ms": 1000 * min(alone),
        "beside_ms": 1000 * min(beside),
        "idle_cpus": idle,
    }


class _Seconds(NamedTuple):
    wall: float
    cpu: float  # of all threads


def _request(stages: BundleStages, seconds: float) -> Request:
    """`seconds` of audio after a second of prompt."""
    return Request(Workload(seconds, 1.0), stages.audio, stages.synthesis)


def _step_seconds(stages: BundleStages, seconds: float) -> _Seconds:
    call = repeatable_call(stages, "solver_step", _request(stages, seconds - 1.0).utterance)
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return _Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def _token_seconds(stages: BundleStages) -> float:
    utterance = Request(Workload(), stages.audio, stages.synthesis).utterance
    call = repeatable_call(stages, "decode", utterance, _TOKENS)
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) / _TOKENS


def _apart(bundle: Path, threads: int, case: Sequence[str], prepack: bool) -> Figures:
    """The figures of one case (`--sizes N`, `--idle`), measured in a process of its own."""
    environment = {**os.environ, PREPACK_VARIABLE: "1" if prepack else "0"}
    run = subprocess.run(
        [sys.executable, "-m", _MODULE, str(bundle), "--threads", str(threads), *case],
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    figures: Figures = json.loads(run.stdout)
    return figures


def print_tables(bundle: Path, threads: int) -> None:
    """Print both tables as Markdown."""
    columns = ("prepacked", "sizes open", "anonymous MB", "mapped MB", "loading, CPU s")
    print(f"| {' | '.join(columns)} | s/step at {_SECONDS[0]} s |")
    print("|---|--:|--:|--:|--:|--:|")
    for prepack in (False, True):
        for sizes in (1, 3):
            row = _apart(bundle, threads, ["--sizes", str(sizes)], prepack)
            print(
                f"| {'yes' if prepack else 'no'} | {sizes} | {row['anonymous_mb']:.0f} "
                f"| {row['file_mb']:.0f} | {row['loading_cpu_s']:.2f} | {row['step_s']:.2f} |",
                flush=True,
            )
    row = _apart(bundle, threads, ["--idle"], prepack=False)
    print(
        f"\nSpeech LM: {row['alone_ms']:.1f} ms/token alone, {row['beside_ms']:.1f} beside five "
        f"more open sessions; CPUs busy while all are idle: {row['idle_cpus']:.2f}"
    )


@reports_failures
def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables, or the figures of one case as JSON; 2 for what can't be done."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {_MODULE}",
        description="Memory and loading of open ladder sizes, and speed beside idle sessions.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    case = parser.add_mutually_exclusive_group()
    case.add_argument("--sizes", type=int, help="only this many open sizes, as JSON")
    case.add_argument("--idle", action="store_true", help="only beside idle sessions, as JSON")
    given = parser.parse_args(arguments)
    if given.sizes:
        print(json.dumps(ladder_figures(given.bundle, given.threads, given.sizes)))
    elif given.idle:
        print(json.dumps(idle_figures(given.bundle, given.threads)))
    else:
        open_bundle(given.bundle)  # refused here, before the processes
        print_tables(given.bundle, given.threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
