"""What a request holds: memory of a process, of one beside it, and the time to its first token.

    python -m tools.measure_memory BUNDLE [--seconds S] [--prompt-seconds S] [--threads N]

The table of `docs/performance.md`, section "Memory". Each process computes prefill, tokens, two
solver steps and the vocoder; the second one does so while the first still holds what it took. Run
it twice: the first time writes the weights as kernels want them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

_MODULE = "tools.measure_memory"
_CALLS = (("decode", 24), ("condition", 1), ("solver_step", 2), ("waveform", 1), ("waveform", 1))


def compute(bundle: Path, seconds: float, prompt_seconds: float, threads: int) -> str:
    """The request once, in this process; a line of figures in MB (1e6 bytes)."""
    started = time.perf_counter()
    from cosyvoice_cpu.component_runner import Call, repeatable_call
    from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
    from cosyvoice_cpu.evaluation.bench.workload import Workload
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages
    from cosyvoice_cpu.system.memory import resident_memory

    work = Workload(seconds=seconds, prompt_seconds=prompt_seconds)
    utterance = EngineSpec("", "bundle", str(bundle)).request(work).utterance
    stages = BundleStages.load(bundle, threads)
    repeatable_call(stages, "prefill", utterance)()
    first = time.perf_counter() - started
    for name, count in _CALLS:
        call: Call = name  # type: ignore[assignment]
        repeatable_call(stages, call, utterance, count)()
    memory = resident_memory()
    return (
        f"anonymous {memory.anonymous_mb:.0f}, mapped {memory.file_mb:.0f},"
        f" peak {memory.peak_mb:.0f}, private {_private_mb():.0f} MB;"
        f" first token after {first:.2f} s"
    )


def _private_mb() -> float:
    """Pages that no other process maps."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_")) / 1e6


def main() -> int:
    """Run both processes; exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio (10)")
    parser.add_argument("--prompt-seconds", type=float, default=5.0, help="of the prompt (5)")
    parser.add_argument("--threads", type=int, default=2, help="that compute (2)")
    parser.add_argument("--hold", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold:
        figures = compute(given.bundle, given.seconds, given.prompt_seconds, given.threads)
        print(figures, flush=True)
        sys.stdin.read()  # what it holds stays until the parent has seen enough
        return 0
    command = [sys.executable, "-m", _MODULE, "--hold", *sys.argv[1:]]
    held = []
    for name in ("first", "second"):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        held.append(process)
        assert process.stdout is not None
        print(f"{name}: {process.stdout.readline().strip()}", flush=True)
    for process in held:
        process.communicate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
