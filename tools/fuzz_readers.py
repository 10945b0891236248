"""Damaged files by the ten thousand, each with a limit of time and memory.

    python -m tools.fuzz_readers [--count N] [--first N] [--kinds NAME ...]

Good files of every kind are changed, blindly and by their structure, and given to the readers that
users' files meet. A reader may read a file, or refuse it as what it is. What counts as a finding:
over 5 s, over 1.5 GB, an exception that is no refusal, the end of the process, a refusal without
end, and a file read that the format's own library refuses. Every input is made from its kind and
number alone, so that a finding can be repeated: `--kinds KIND --first NUMBER --count 1`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from cosyvoice_cpu.bundle.stale_files import scratch_folder
from cosyvoice_cpu.errors import CosyVoiceError
from tools.damaged_files import (
    Change,
    changed_safetensors,
    changed_torch_file,
    damaged,
    damaged_or_changed_json,
)
from tools.failures import reports_failures

COUNT = 20_000
SECONDS = 5.0
MEGABYTES = 1500.0
_LONGEST_REFUSAL = 5000  # characters


@dataclass(frozen=True)
class Kind:
    """A kind of file: what it is called, how it is changed, and what reads it."""

    file: str
    good: Sequence[bytes]
    change: Change
    read: Callable[[Path], None]


@dataclass
class Tally:
    """What came of one kind."""

    outcomes: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: float = 0.0  # seconds
    largest: float = 0.0  # megabytes that one input added


def make_kinds(folder: Path) -> dict[str, Kind]:
    """Every kind; good files that have to be made are written to `folder` first."""
    from tools.fuzzed_readers import READERS, good_files

    changes: dict[str, Change] = {
        **dict.fromkeys(("state dict", "spk2info"), changed_torch_file),
        **dict.fromkeys(("weights", "speaker"), changed_safetensors),
        **dict.fromkeys(("manifest", "vocabulary"), damaged_or_changed_json),
    }
    good = good_files(folder)
    return {
        name: Kind(file, good[name], changes.get(name, damaged), read)
        for name, (file, read) in READERS.items()
    }


def input_of(kind: Kind, name: str, number: int) -> bytes:
    """The input of that number, the same in every run."""
    chance = random.Random(f"{name} {number}")
    return kind.change(chance.choice(kind.good), chance)


def work(kinds: dict[str, Kind], folder: Path, tasks: Connection) -> None:
    """Read what comes; for each input one answer: outcome, seconds, megabytes it added."""
    while (task := tasks.recv()) is not None:
        name, number = task
        kind = kinds[name]
        path = folder / kind.file
        path.write_bytes(input_of(kind, name, number))
        before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
        try:
            kind.read(path)
            outcome = "read"
        except CosyVoiceError as error:
            short = len(error.lines()) < _LONGEST_REFUSAL
            outcome = "refused" if short else "finding: a refusal without end"
        except BaseException as error:
            outcome = f"finding: {type(error).__name__}: {str(error)[:200]}"
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        tasks.send((outcome, time.monotonic() - started, grown))


class Worker:
    """A process that reads inputs, and is replaced when one takes too long or ends it."""

    def __init__(self, kinds: dict[str, Kind], folder: Path) -> None:
        self._kinds, self._folder = kinds, folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, far = context.Pipe()
        self._process = context.Process(
            target=work, args=(self._kinds, self._folder, far), daemon=True
        )
        self._process.start()
        far.close()

    def read(self, name: str, number: int) -> tuple[str, float, float]:
        """Outcome, seconds and added megabytes of one input."""
        self._pipe.send((name, number))
        if self._pipe.poll(2 * SECONDS):  # the process may have been waiting for the processor
            try:
                outcome, seconds, grown = self._pipe.recv()
            except EOFError:
                self._start()
                return "finding: it ended the process", 0.0, 0.0
            if seconds > SECONDS:
                outcome = f"finding: took {seconds:.1f} s"
            if grown > MEGABYTES:
                outcome = f"finding: took {grown:.0f} MB"
            return outcome, seconds, grown
        self.end()
        self._start()
        return f"finding: not done after {2 * SECONDS:.0f} s", 2 * SECONDS, 0.0

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.join()


def fuzz(kinds: dict[str, Kind], folder: Path, first: int, count: int) -> dict[str, Tally]:
    """What became of inputs `first` to `first + count - 1` of each kind."""
    tallies = {name: Tally() for name in kinds}
    worker = Worker(kinds, folder)
    try:
        for name, tally in tallies.items():
            for number in range(first, first + count):
                outcome, seconds, grown = worker.read(name, number)
                tally.slowest = max(tally.slowest, seconds)
                tally.largest = max(tally.largest, grown)
                tally.outcomes[outcome.partition(":")[0]] += 1
                if outcome.startswith("finding"):
                    tally.findings.append(f"{name} {number}: {outcome.partition(': ')[2]}")
    finally:
        worker.end()
    return tallies


@reports_failures
def main() -> int:
    """Run; exit code 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help=f"inputs in all ({COUNT})")
    parser.add_argument("--first", type=int, default=0, help="number of the first of each kind")
    parser.add_argument("--kinds", nargs="*", help="only these")
    arguments = parser.parse_args()
    with scratch_folder("fuzz") as folder:
        kinds = make_kinds(folder)
        kinds = {name: kinds[name] for name in arguments.kinds or kinds}
        share = -(-arguments.count // len(kinds))
        tallies = fuzz(kinds, folder, arguments.first, share)
    print("| kind | inputs | read | refused | slowest, s | largest, MB | findings |")
    print("|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        counts = [tally.outcomes[outcome] for outcome in ("read", "refused")]
        print(
            f"| {name} | {share} | {counts[0]} | {counts[1]} | {tally.slowest:.2f}"
            f" | {tally.largest:.0f} | {len(tally.findings)} |"
        )
    findings = [finding for tally in tallies.values() for finding in tally.findings]
    print("\n".join(findings))
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
