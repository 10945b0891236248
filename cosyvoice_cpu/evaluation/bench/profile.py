"""Where the time of one request goes: per graph, and inside a graph per operator and kind.

ONNX Runtime's own profile of every kernel, of one run per graph after a warm-up; what a request
calls more often is multiplied. The recording itself costs a few microseconds per kernel, which
shows at the speech LM's tokens and nowhere else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosyvoice_cpu.bundle.stale_files import scratch_folder
from cosyvoice_cpu.component_runner import repeatable_call
from cosyvoice_cpu.evaluation.bench.kernel_kinds import Kind, shares
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import Recording

_DECODED = 8  # tokens whose kernels are averaged


@dataclass(frozen=True)
class OperatorTime:
    """All nodes of one operator in a graph."""

    operator: str  # as ONNX Runtime runs it, after its own rewriting
    nodes: int
    seconds: float  # per call of the graph


@dataclass(frozen=True)
class GraphTime:
    """One graph's part of a request."""

    stage: str
    calls: float  # per request
    seconds: float  # per call, all kernels
    operators: list[OperatorTime]  # the slowest first

    @property
    def seconds_per_request(self) -> float:
        """Of all calls."""
        return self.calls * self.seconds

    @property
    def kinds(self) -> dict[Kind, float]:
        """What part of the time is products, attention, elementwise work, moves in memory."""
        return shares((part.operator, part.seconds) for part in self.operators)


def kinds_of_request(times: Sequence[GraphTime]) -> dict[Kind, float]:
    """The same over all graphs of a request."""
    return shares(
        (part.operator, time.calls * part.seconds) for time in times for part in time.operators
    )


def profile_bundle(bundle: Path, workload: Workload, threads: int) -> list[GraphTime]:
    """Kernel times of one request on a bundle, in the order of the pipeline.

    Raises: BundleError, ManifestError.
    """
    with scratch_folder("profile") as folder:
        recording = Recording(folder)
        stages = BundleStages.load(bundle, threads, recording=recording)
        request = Request(workload, stages.audio, stages.synthesis)
        _run_twice(stages, request)
        recorded = {graph: _runs(times) for graph, times in recording.files().items()}
    return _graph_times(recorded, request)


def _run_twice(stages: BundleStages, request: Request) -> None:
    """Every graph twice, the second time as recorded; the speech LM also token by token."""
    utterance = request.utterance
    repeatable_call(stages, "prefill", utterance)()
    repeatable_call(stages, "decode", utterance, _DECODED)()  # behind a second prefill
    for name in ("condition", "solver_step", "waveform"):
        call = repeatable_call(stages, name, utterance)
        call()
        call()


def _graph_times(
    recorded: dict[str, list[list[dict[str, Any]]]], request: Request
) -> list[GraphTime]:
    """`recorded`: per graph file its runs, per run its kernels."""
    lm = recorded["speech_lm"]
    times = [
        _graph_time("speech_lm prefill", 1, lm[1:2]),
        _graph_time("speech_lm decode", request.tokens - 1, lm[2:]),
    ]
    for stem, runs in recorded.items():
        if stem == "speech_lm":
            continue
        calls = round(request.guided_steps) if stem.startswith("full") else 1
        times.append(_graph_time(_STAGES.get(stem.partition("-")[0], stem), calls, runs[1:2]))
    return sorted(times, key=lambda time: _ORDER.index(time.stage))


_STAGES = {"full": "flow_estimator", "generator": "vocoder generator"}
_ORDER = (
    "speech_lm prefill",
    "speech_lm decode",
    "flow_encoder",
    "flow_estimator",
    "f0_predictor",
    "excitation",
    "vocoder generator",
)


def _graph_time(stage: str, calls: int, runs: list[list[dict[str, Any]]]) -> GraphTime:
    """The mean of `runs`."""
    seconds: dict[str, float] = defaultdict(float)
    nodes: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for kernel in run:
            operator = kernel["args"]["op_name"]
            seconds[operator] += kernel["dur"] / 1e6 / len(runs)
            nodes[operator].add(kernel["name"])
    operators = [OperatorTime(name, len(nodes[name]), seconds[name]) for name in seconds]
    operators.sort(key=lambda operator: -operator.seconds)
    return GraphTime(stage, calls, sum(seconds.values()), operators)


def _runs(path: Path) -> list[list[dict[str, Any]]]:
    """The kernels of each run in a profile file, told apart by the runs' times."""
    events = json.loads(path.read_text())
    runs = sorted(
        (event for event in events if event["name"] == "model_run"), key=lambda event: event["ts"]
    )
    kernels = [event for event in events if event["name"].endswith("_kernel_time")]
    return [
        [kernel for kernel in kernels if run["ts"] <= kernel["ts"] < run["ts"] + run["dur"]]
        for run in runs
    ]


def as_json(times: list[GraphTime]) -> list[dict[str, Any]]:
    """Plain values."""
    return [
        {
            "stage": time.stage,
            "calls": time.calls,
            "seconds_per_call": time.seconds,
            "seconds_per_request": time.seconds_per_request,
            "shares": time.kinds,
            "operators": [
                {"operator": o.operator, "nodes": o.nodes, "seconds_per_call": o.seconds}
                for o in time.operators
            ],
        }
        for time in times
    ]
