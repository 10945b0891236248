"""The list of bad inputs in docs/faults.md, made from the tests themselves.

python tests/fault_list.py > docs/faults.md
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator
from importlib import import_module

from support.fuzz_inputs import READERS
from support.places import DOCS

DOC = DOCS / "faults.md"
_BOUNDARIES = {
    "test_faults_paths": "Names of files and folders",
    "test_faults_options": "Numbers and words of options",
    "test_faults_clips": "Recordings",
    "test_faults_texts": "Texts",
    "test_faults_bundle_content": "Bundles and speakers that agree with themselves and are wrong",
    "test_faults_system": "Disk, streams, home, kills, interrupts, two at once",
}

_HEAD = """# Bad days

What every command does when its input, or what surrounds it, is wrong: one `error:` line that names
the file or value, at most one `hint:` line, exit code 1 (the work failed), 2 (wrong usage) or 130
(interrupted); no traceback, no wait without end, nothing half-written under an output's name, and
what was there before stays. A kill that can't be caught may leave a hidden `.NAME.partial-…` beside
the output; the next run with that output removes it.

What the system refuses in a place that no command foresaw is such a line too, with the system's own
words; only a bug of ours says `internal error` and asks for `--debug`. Closed streams are made up
for, a full stdout is exit code 1. ONNX Runtime's telemetry is off (`ORT_DISABLE_TELEMETRY=1`,
unless the variable is set), so nothing is written to a home folder but this program's own cache.

This page lists the inputs of `tests/test_faults_*.py`; it is made by `python tests/fault_list.py >
docs/faults.md` and a test fails when it is stale. The tests of each module hold more: manifests and
paths (`test_bundle_manifest.py`, `test_bundle_reader.py`), each published weakness of ONNX external
data (`test_bundle_external_data.py`), writing (`test_bundle_writer.py`), checkpoints
(`test_checkpoint_*.py`), speaker files (`test_frontend_speakers.py`), altered bundles
(`test_verify_bundle.py`).
"""
_TAIL = """
Not covered: Windows and macOS (these tests run on Linux), a disk that fails while it is read, a
machine without memory, network file systems.
"""


def cases(module: str) -> Iterator[tuple[str, int]]:
    """Each test of the module as a sentence, and with how many inputs it runs."""
    for name, function in vars(import_module(module)).items():
        if name.startswith("test_") and inspect.isfunction(function):
            marks = [mark for mark in getattr(function, "pytestmark", ()) if mark.args]
            sentence = name.removeprefix("test_").replace("_", " ")
            yield sentence, math.prod(len(mark.args[1]) for mark in marks)


def page() -> str:
    """The whole of docs/faults.md."""
    found = {module: list(cases(module)) for module in _BOUNDARIES}
    total = sum(count for tests in found.values() for _, count in tests)
    lines = [_HEAD, f"## Named inputs: {total}", ""]
    for module, title in _BOUNDARIES.items():
        lines += [f"**{title}** (`{module}.py`)", "", "| what is true | inputs |", "|---|--:|"]
        lines += [f"| {sentence} | {count} |" for sentence, count in found[module]]
        lines.append("")
    lines += [
        f"## Damaged inputs by the thousand: {sum(READERS.values()):,}",
        "",
        "Seeded and the same in every run, some 15 s of CPU: bytes flipped, cut, doubled, moved",
        "and put in, and texts put together from all of Unicode. Each is read, or refused as what",
        "it is.",
        "",
        "    pytest tests/test_faults_fuzz.py                          # as in every run",
        "    COSYVOICE_FUZZ_TIMES=10 pytest tests/test_faults_fuzz.py  # ten times as many",
        "",
        "| reader | inputs |",
        "|---|--:|",
        *(f"| {reader} | {count:,} |" for reader, count in READERS.items()),
    ]
    return "\n".join(lines) + "\n" + _TAIL


if __name__ == "__main__":
    print(page(), end="")
