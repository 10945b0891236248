"""One engine in a process of its own, driven by JSON lines.

    python -m cosyvoice_cpu.evaluation.bench.process '{"spec": ..., "workload": ..., "threads": 2}'

Its memory is the engine's alone, and ONNX Runtime never shares a process with torch. A command is
one line on stdin, `{"do": NAME, ...}`, its answer one line on stdout: an object, with `error` in
it if the command failed. Whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.component_runner import (
    CALLS,
    Call,
    guidance_share,
    repeatable_call,
    run_component,
)
from cosyvoice_cpu.errors import CosyVoiceError, first_line
from cosyvoice_cpu.evaluation.bench.engines import Engine, EngineSpec, UnavailableError, load_engine
from cosyvoice_cpu.evaluation.bench.streams import measure_stream, warm_up
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload

Answer = dict[str, Any]

_SHORT = Workload(seconds=1.0, prompt_seconds=1.0)
_STAGES: dict[Call, str] = {
    "prefill": "speech_lm",
    "decode": "speech_lm",
    "condition": "flow",
    "solver_step": "flow",
    "waveform": "vocoder",
}


class _Timed(NamedTuple):
    seconds: float
    result: Floats


class Commands:
    """What a bench process does on request. Times are wall-clock seconds."""

    def __init__(self, spec: EngineSpec, workload: Workload, threads: int) -> None:
        self._spec = spec
        self._threads = threads
        self._request = spec.request(workload)
        self._short = spec.request(_SHORT)
        self._engine: Engine

    def load(self) -> Answer:
        """Load the networks, or map the bundle."""
        self._engine = load_engine(self._spec, self._threads)
        return {}

    def touch(self) -> Answer:
        """Let every stage answer a short request once, as a first user would make it."""
        self._run_all(self._short)
        return {}

    def warm_up(self) -> Answer:
        """Run every stage once at the request's lengths, whatever comes out."""
        self._run_all(self._request)
        return {}

    def audio(self, folder: str, shared_mel: str | None = None) -> Answer:
        """The whole request once, a warm-up whose results are checked; times are first-run times.

        `guidance`: how much of the velocity guidance changes, None for a preset without it.

        Writes `logits.npy`, `mel.npy` and `waveform.npy` to `folder`. The waveform is that of
        `shared_mel` if given, so that the vocoder is compared at equal input.
        """
        stages, utterance = self._engine.stages, self._request.utterance
        started = time.perf_counter()
        logits = self._timed("prefill", self._request).result
        flow_started = time.perf_counter()
        with self._engine.computing("flow"):
            mel = run_component(stages, "flow_estimator", utterance, preset=self._request.preset)[
                "mel"
            ]
            flow_ended = time.perf_counter()
            guidance = guidance_share(stages, utterance, self._request.preset)
        given = np.load(shared_mel) if shared_mel else mel
        with self._engine.computing("vocoder"):
            waveform = run_component(stages, "vocoder", utterance, mel=given)["waveform"]
        for name, array in (("logits", logits), ("mel", mel), ("waveform", waveform)):
            np.save(Path(folder) / f"{name}.npy", array)
        return {
            "flow_s": flow_ended - flow_started,
            "guidance": guidance,
            "total_s": time.perf_counter() - started,
        }

    def measure(self) -> Answer:
        """One repetition: seconds of prefill, token, flow condition, solver step and vocoder.

        The first solver step stands apart: it takes the memory of activations that the stage before
        gave back, once in a request.
        """
        request = self._request
        tokens, steps = request.decode_tokens, request.workload.solver_steps
        return {
            "prefill_s": self._timed("prefill", request).seconds,
            "token_s": self._timed("decode", request, tokens).seconds / tokens,
            "condition_s": self._timed("condition", request).seconds,
            "first_step_s": self._timed("solver_step", request).seconds,
            "step_s": self._timed("solver_step", request, steps).seconds / steps,
            "vocoder_s": self._timed("waveform", request).seconds,
        }

    def warm_stream(self, workers: int, whole: bool) -> Answer:
        """What comes before the first `stream`."""
        warm_up(self._engine.stages, self._request, workers, whole=whole)
        return {}

    def stream(self, workers: int, whole: bool) -> Answer:
        """The request whole, if asked for, and streamed; see `bench.streams`."""
        return measure_stream(self._engine.stages, self._request, workers, whole=whole)

    def _run_all(self, request: Request) -> None:
        for name in CALLS:
            self._timed(name, request)

    def _timed(self, name: Call, request: Request, count: int = 1) -> _Timed:
        """One call; what it needs is prepared outside the time."""
        with self._engine.computing(_STAGES[name]):
            call = repeatable_call(
                self._engine.stages, name, request.utterance, count, request.preset
            )
            started = time.perf_counter()
            result = call()
            return _Timed(time.perf_counter() - started, result)


def main() -> None:
    """Answer commands until stdin ends."""
    task = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of libraries must not end up between the answers
    spec, workload = EngineSpec(**task["spec"]), Workload(**task["workload"])
    commands: Commands | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            commands = commands or Commands(spec, workload, task["threads"])
            answer = getattr(commands, command.pop("do"))(**command)
        except Exception as error:
            answer = _failure(error)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _failure(error: Exception) -> Answer:
    if isinstance(error, CosyVoiceError):
        return {
            "error": error.what,
            "hint": error.hint,
            "unavailable": isinstance(error, UnavailableError),
        }
    reason = f"{type(error).__name__}: {first_line(error)}"
    return {"error": reason, "hint": "", "unavailable": False}


if __name__ == "__main__":
    main()
