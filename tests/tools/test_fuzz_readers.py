"""The fuzzer finds what it looks for, and nothing in good files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cosyvoice_cpu.errors import BundleError
from tools import fuzz_readers
from tools.damaged_files import damaged
from tools.fuzz_readers import Kind, Worker, fuzz, input_of, make_kinds

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are forked")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Kind]:
    return make_kinds(tmp_path_factory.mktemp("good"))


def test_every_good_file_is_read(kinds: dict[str, Kind], tmp_path: Path) -> None:
    for kind in kinds.values():
        for content in kind.good:
            (tmp_path / kind.file).write_bytes(content)
            kind.read(tmp_path / kind.file)


def test_inputs_are_the_same_in_every_run_and_differ_from_the_good(
    kinds: dict[str, Kind],
) -> None:
    for name, kind in kinds.items():
        inputs = [input_of(kind, name, number) for number in range(20)]
        assert inputs == [input_of(kind, name, number) for number in range(20)]
        assert len(set(inputs)) > 15


def test_a_few_inputs_of_each_kind_have_no_findings(kinds: dict[str, Kind], tmp_path: Path) -> None:
    tallies = fuzz(kinds, tmp_path, first=10**6, count=20)
    assert [finding for tally in tallies.values() for finding in tally.findings] == []
    assert all(sum(tally.outcomes.values()) == 20 for tally in tallies.values())


def reads(path: Path) -> None:
    pass


def refuses(path: Path) -> None:
    raise BundleError("it is damaged", "copy it again")


def hangs(path: Path) -> None:
    time.sleep(60)


def dies(path: Path) -> None:
    os._exit(3)


def grows(path: Path) -> None:
    np.ones(60 << 20, np.uint8)


def fails(path: Path) -> None:
    raise KeyError("a bug")


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fuzz_readers, "SECONDS", 0.5)
    monkeypatch.setattr(fuzz_readers, "MEGABYTES", 30)
    yield


@pytest.mark.parametrize(
    ("read", "outcome"),
    [
        (reads, "read"),
        (refuses, "refused"),
        (hangs, "finding: not done after"),
        (dies, "finding: it ended the process"),
        (grows, "finding: took 6"),
        (fails, "finding: KeyError"),
    ],
)
def test_what_a_reader_does_is_told_and_the_next_input_is_read(
    tmp_path: Path, soon: None, read: Callable[[Path], None], outcome: str
) -> None:
    kinds = {
        "tried": Kind("a", [b"content"], damaged, read),
        "good": Kind("b", [b"content"], damaged, reads),
    }
    worker = Worker(kinds, tmp_path)
    try:
        assert worker.read("tried", 0)[0].startswith(outcome)
        assert worker.read("good", 0)[0] == "read"
    finally:
        worker.end()
