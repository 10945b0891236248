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
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.decoding.solver import solver_times, time_grid
from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.evaluation.bench.engines import Engine, EngineSpec, UnavailableError, load_engine
from cosyvoice_cpu.evaluation.bench.workload import (
    FRAMES_PER_TOKEN,
    MEL_BINS,
    SOLVER_STEPS,
    Workload,
)

Answer = dict[str, Any]

_SHORT = Workload(seconds=1.0, prompt_seconds=1.0)


class Worker:
    """The commands. Times are wall-clock seconds."""

    def __init__(self, spec: EngineSpec, workload: Workload, threads: int) -> None:
        self._spec = spec
        self._workload = workload
        self._threads = threads
        self._engine: Engine
        self._mel: Floats

    def load(self) -> Answer:
        """Load the networks, or map the bundle."""
        self._engine = load_engine(self._spec, self._threads)
        return {}

    def touch(self) -> Answer:
        """Let every stage answer a short request once, as a first user would make it."""
        self._prefill(_SHORT)
        self._condition(_SHORT)
        self._velocities(_SHORT, 1)
        with self._computing("vocoder"):
            self._engine.stages.mel_to_waveform(_SHORT.inputs.prompt_mel.T)
        return {}

    def warm_up(self) -> Answer:
        """Run every stage once at the request's lengths, whatever comes out."""
        self._prefill(self._workload)
        self._condition(self._workload)
        self._velocities(self._workload, 1)
        rng = np.random.default_rng(0)
        frames = self._workload.tokens * FRAMES_PER_TOKEN
        self._mel = rng.normal(-5.0, 2.0, (MEL_BINS, frames)).astype(np.float32)
        with self._computing("vocoder"):
            self._engine.stages.mel_to_waveform(self._mel)
        return {}

    def audio(self, folder: str, shared_mel: str | None = None) -> Answer:
        """The whole request once, a warm-up whose results are checked; times are first-run times.

        Writes `logits.npy`, `mel.npy` and `waveform.npy` to `folder`. The waveform is that of
        `shared_mel` if given, so that the vocoder is compared at equal input.
        """
        stages, inputs = self._engine.stages, self._workload.inputs
        started = time.perf_counter()
        logits = self._prefill(self._workload)[1]
        flow_started = time.perf_counter()
        with self._computing("flow"):
            self._mel = stages.tokens_to_mel(
                inputs.tokens,
                prompt_tokens=inputs.prompt_tokens,
                prompt_mel=inputs.prompt_mel,
                embedding=inputs.embedding,
            )
        flow_ended = time.perf_counter()
        mel = np.load(shared_mel) if shared_mel else self._mel
        with self._computing("vocoder"):
            waveform = stages.mel_to_waveform(mel)
        for name, array in (("logits", logits), ("mel", self._mel), ("waveform", waveform)):
            np.save(Path(folder) / f"{name}.npy", array)
        return {
            "flow_s": flow_ended - flow_started,
            "total_s": time.perf_counter() - started,
        }

    def measure(self) -> Answer:
        """One repetition: seconds of prefill, token, flow condition, solver step and vocoder."""
        workload, stages = self._workload, self._engine.stages
        prefill_s, _, session = self._prefill(workload)
        started = time.perf_counter()
        with self._computing("speech_lm"):
            for token in workload.inputs.tokens[: workload.decode_tokens]:
                session.step(token)
        decode_s = time.perf_counter() - started
        condition_s = self._condition(workload)
        flow_s = self._velocities(workload, workload.solver_steps)
        started = time.perf_counter()
        with self._computing("vocoder"):
            stages.mel_to_waveform(self._mel)
        return {
            "prefill_s": prefill_s,
            "token_s": decode_s / min(workload.decode_tokens, workload.tokens),
            "condition_s": condition_s,
            "step_s": flow_s / workload.solver_steps,
            "vocoder_s": time.perf_counter() - started,
        }

    def _computing(self, stage: str) -> AbstractContextManager[None]:
        return self._engine.computing(stage)

    def _prefill(self, workload: Workload) -> tuple[float, Floats, Any]:
        inputs = workload.inputs
        started = time.perf_counter()
        with self._computing("speech_lm"):
            session = self._engine.stages.speech_lm_session()
            logits = session.prefill(inputs.text_ids, inputs.prompt_text_ids, inputs.prompt_tokens)
        return time.perf_counter() - started, logits, session

    def _condition(self, workload: Workload) -> float:
        inputs = workload.inputs
        started = time.perf_counter()
        with self._computing("flow"):
            self._engine.stages.flow_condition(
                inputs.tokens,
                prompt_tokens=inputs.prompt_tokens,
                prompt_mel=inputs.prompt_mel,
                embedding=inputs.embedding,
            )
        return time.perf_counter() - started

    def _velocities(self, workload: Workload, steps: int) -> float:
        """Seconds of the first `steps` solver steps; the time does not depend on the values."""
        frames = workload.frames
        synthesis = self._engine.stages.synthesis
        noise = flow_noise(frames, synthesis.mel.num_mels, synthesis.max_frames)
        pair = np.stack([noise, noise])  # [2, 80, T], the guided batch
        mask = np.ones((2, 1, frames), np.float32)
        speaker = np.ones((2, noise.shape[0]), np.float32)
        started = time.perf_counter()
        with self._computing("flow"):
            for step in range(steps):
                t = np.full(
                    2, solver_times(time_grid(SOLVER_STEPS))[step % SOLVER_STEPS], np.float32
                )
                self._engine.stages.flow_velocity(pair, mask, pair, t, speaker, pair)
        return time.perf_counter() - started


def main() -> None:
    """Answer commands until stdin ends."""
    task = json.loads(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # prints of libraries must not end up between the answers
    worker = Worker(EngineSpec(**task["spec"]), Workload(**task["workload"]), task["threads"])
    commands: dict[str, Callable[..., Answer]] = {
        "load": worker.load,
        "touch": worker.touch,
        "warm_up": worker.warm_up,
        "audio": worker.audio,
        "measure": worker.measure,
    }
    for line in sys.stdin:
        command = json.loads(line)
        try:
            answer = commands[command.pop("do")](**command)
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
    reason = str(error).splitlines()[0] if str(error) else ""
    return {"error": f"{type(error).__name__}: {reason}", "hint": "", "unavailable": False}


if __name__ == "__main__":
    main()
