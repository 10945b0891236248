"""Runs a command again and again, each time killed at another of its steps on the file system.

    python fuzz_kill.py ROUNDS FOLDER synth Hi --output x.wav ...

A step is a file opened for writing, renamed or removed, or a folder made, below FOLDER. The first
run is not killed and counts them; ROUNDS of them, spread over the run, are then killed at, by
SIGKILL from within. Prints a JSON list with what FOLDER held after each: names, sorted.
Each run is a fork, so that the imports are paid for once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

_STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.copyfile"}


def _run(arguments: list[str], folder: str, kill_at: int, counter: int) -> None:
    from cosyvoice_cpu.cli import main

    steps = 0

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal steps
        if event not in _STEPS or not str(details[0]).startswith(folder):
            return
        if event == "open" and not (len(details) > 2 and details[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        steps += 1
        os.pwrite(counter, steps.to_bytes(4, "little"), 0)
        if steps == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    sys.argv = ["cosyvoice-cpu", *arguments]
    main()


def _forked(arguments: list[str], folder: str, kill_at: int) -> tuple[int, int]:
    """How the run ended (0, or minus the signal), and its steps."""
    counter = os.memfd_create("steps")
    os.write(counter, bytes(4))
    child = os.fork()
    if not child:
        os.dup2(2, 1)
        try:
            _run(arguments, folder, kill_at, counter)
        except SystemExit as end:
            os._exit(int(end.code or 0))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    steps = int.from_bytes(os.pread(counter, 4, 0), "little")
    os.close(counter)
    return os.waitstatus_to_exitcode(status), steps


def _names(folder: str) -> list[str]:
    return sorted(os.listdir(folder))


def main() -> None:
    """See the module."""
    rounds, folder, *arguments = sys.argv[1:]
    import_module("cosyvoice_cpu.cli")
    import_module("cosyvoice_cpu.synthesis.synthesizer")
    if arguments[0] == "export":
        import_module("cosyvoice_cpu.export.components")
    code, steps = _forked(arguments, folder, 0)
    found = [{"ended": code, "names": _names(folder)}]
    count = int(rounds)
    for kill_at in sorted({1 + steps * (2 * i + 1) // (2 * count + 1) for i in range(count)}):
        code, _ = _forked(arguments, folder, kill_at)
        found.append({"ended": code, "names": _names(folder)})
    code, _ = _forked(arguments, folder, 0)
    found.append({"ended": code, "names": _names(folder)})
    print(json.dumps(found))


if __name__ == "__main__":
    Path(sys.argv[2]).mkdir(exist_ok=True)
    main()
