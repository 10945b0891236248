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
import json
import multiprocessing
import random
import resource
import struct
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cosyvoice_cpu.errors import CosyVoiceError
from tools.failures import reports_failures

COUNT = 20_000
SECONDS = 5.0
MEGABYTES = 1500.0
_LONGEST_REFUSAL = 5000  # characters

Change = Callable[[bytes, random.Random], bytes]

_WORDS = (b"", b"\0", b"\xff" * 8, b'"', b"{", b"]", b"\n", b"-1", b"1e999", b"\xed\xa0\x80")
_VALUES: tuple[Any, ...] = (
    *(None, True, 0, 1, -1, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.5, 1e308, -0.0),
    *("", "a", "x" * 10_000, "\ud800", "..", "/etc/passwd", "NaN", [], {}, [[]], [0] * 1000),
)
_OPERATIONS = b"().0123FGIJKLMNPQRSTUVX]abcdeghijlopqrstu}\x80\x81\x82\x85\x86\x87\x88\x89\x8a\x8b"


def damaged(content: bytes, chance: random.Random) -> bytes:
    """`content` changed in one to four places: bytes flipped, cut, doubled, moved or put in."""
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = chance.choice((len(changed), len(changed), 400))
        place = chance.randrange(max(1, min(end, len(changed))))
        length = chance.choice((1, 1, 2, 4, 8, 64, 1000))
        other = chance.randrange(max(1, len(changed)))
        match chance.randrange(6):
            case 0:
                changed[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del changed[place : place + length]
            case 2:
                changed[place:place] = changed[place : place + length]
            case 3:
                changed[place : place + length] = changed[other : other + length]
            case 4:
                changed[place : place + length] = chance.choice(_WORDS)
            case _:
                del changed[place:]
    return bytes(changed)


def changed_json(text: bytes, chance: random.Random) -> bytes:
    """A JSON text with one to three of its values replaced, doubled or removed."""
    tree = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        holder = tree
        while True:
            keys: Sequence[Any] = list(holder) if isinstance(holder, dict) else range(len(holder))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(holder[key], (dict, list)) and holder[key] and chance.random() < 0.8:
                holder = holder[key]
                continue
            if chance.random() < 0.15:
                del holder[key]
            elif isinstance(holder, dict) and chance.random() < 0.1:
                holder[chance.choice(("x", key + " "))] = deepcopy(holder[key])
            else:
                holder[key] = deepcopy(chance.choice(_VALUES))
            break
    return json.dumps(tree).encode()


def damaged_or_changed_json(text: bytes, chance: random.Random) -> bytes:
    """A JSON text changed blindly or by its structure."""
    return (changed_json if chance.random() < 0.5 else damaged)(text, chance)


def changed_torch_file(content: bytes, chance: random.Random) -> bytes:
    """A file of torch.save with another program, whole in its frame; else blindly damaged."""
    if chance.random() < 0.3:
        return damaged(content, chance)
    with zipfile.ZipFile(BytesIO(content)) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    program = next(name for name in entries if name.endswith("data.pkl"))
    text = bytearray(entries[program])
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(len(text))
        match chance.randrange(5):
            case 0:
                text[place] = chance.choice(_OPERATIONS)
            case 1:
                text[place:place] = bytes(chance.choices(_OPERATIONS, k=chance.randint(1, 5)))
            case 2:
                text[place : place + 4] = struct.pack("<I", chance.choice((0, 1, 2**31, 2**32 - 1)))
            case 3:
                text[place:place] = b"h\0h\0\x86q\0" * chance.randint(1, 80)
            case _:
                text = bytearray(damaged(bytes(text), chance))
        text = text or bytearray(b".")
    entries[program] = bytes(text)
    packed = BytesIO()
    method = chance.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(packed, "w", method) as archive:
        for name, value in entries.items():
            archive.writestr(name, value)
    return packed.getvalue()


def changed_safetensors(content: bytes, chance: random.Random) -> bytes:
    """A safetensors file with another header, whole in its frame; else blindly damaged."""
    if chance.random() < 0.3:
        return damaged(content, chance)
    end = 8 + int.from_bytes(content[:8], "little")
    change = changed_json if chance.random() < 0.7 else damaged
    header = change(content[8:end], chance)
    return len(header).to_bytes(8, "little") + header + content[end:]


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
    with tempfile.TemporaryDirectory() as folder:
        kinds = make_kinds(Path(folder))
        kinds = {name: kinds[name] for name in arguments.kinds or kinds}
        share = -(-arguments.count // len(kinds))
        tallies = fuzz(kinds, Path(folder), arguments.first, share)
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
