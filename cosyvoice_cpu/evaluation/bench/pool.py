"""The parent's side of a bench process: start it, ask it, watch its memory, end it."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from typing import Any

from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, UnavailableError
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.system.memory import MemoryWatch, ResidentMemory

_MODULE = "cosyvoice_cpu.evaluation.bench.process"
_END_SECONDS = 10


class BenchProcess:
    """One process and its pipe. A context manager: the process ends with the block."""

    def __init__(self, spec: EngineSpec, workload: Workload, threads: int) -> None:
        task = {"spec": spec.as_json(), "workload": workload.as_json(), "threads": threads}
        self.spec = spec
        self.started = time.perf_counter()
        self._messages = tempfile.TemporaryFile()  # noqa: SIM115, closed by end()
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
        )
        self._watch = MemoryWatch(self._process.pid)

    def __enter__(self) -> BenchProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, command: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises: SynthesisError if it failed or the process died, UnavailableError if this machine
        can't compute the row.
        """
        process = self._process
        assert process.stdin and process.stdout
        try:
            process.stdin.write(json.dumps({"do": command, **arguments}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            code = process.wait()
            reason = "was there enough memory?" if code == -9 else self._last_message()
            raise SynthesisError(
                f"{self.spec.name}: its process ended with code {code} ({reason})",
                "measure fewer rows at a time, or a shorter request",
            )
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            # What fails in a compiled row is the compiler's business, not the networks'.
            unavailable = answer["unavailable"] or self.spec.variant == "compile"
            kind = UnavailableError if unavailable else SynthesisError
            raise kind(answer["error"], answer["hint"])
        return answer

    def end(self) -> ResidentMemory:
        """End the process; its memory peaks."""
        peaks = self._watch.stop()
        process = self._process
        if process.stdin and not process.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
        self._messages.close()
        return peaks

    def _last_message(self) -> str:
        self._messages.seek(0)
        lines = self._messages.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"
