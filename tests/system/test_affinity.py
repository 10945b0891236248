"""Lists of processors, and a process that runs where it was told to."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.command_line import run

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.system.affinity import parse_cpus, performance_cpus, shown_cpus

CODE = (
    "import os, sys\n"
    "from cosyvoice_cpu.system.affinity import use_cpus\n"
    "use_cpus(sys.argv[1])\n"
    "print(sorted(os.sched_getaffinity(0)))\n"
)


@pytest.mark.parametrize(
    ("text", "cpus"), [("0", {0}), ("0-3", {0, 1, 2, 3}), ("0-1, 8,10-11", {0, 1, 8, 10, 11})]
)
def test_a_list_names_processors(text: str, cpus: set[int]) -> None:
    assert parse_cpus(text) == cpus


@pytest.mark.parametrize("text", ["", "a", "3-1", "0,,1", "-1", "0-", "1-2-3", "999999999"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refusal:
        parse_cpus(text)
    assert refusal.value.what == f"{text!r} lists no processors"


@given(st.sets(st.integers(0, 300), min_size=1))
def test_a_list_that_is_shown_is_read_back(cpus: set[int]) -> None:
    assert parse_cpus(shown_cpus(cpus)) == cpus


def test_intels_fast_cores_are_found(tmp_path: Path) -> None:
    (tmp_path / "cpu_core").mkdir()
    (tmp_path / "cpu_core" / "cpus").write_text("0-7\n")
    assert performance_cpus(tmp_path) == set(range(8))


@pytest.mark.parametrize(
    ("capacities", "fast"), [([446, 446, 1024, 1024], {2, 3}), ([1024, 1024], set()), ([], set())]
)
def test_arms_fast_cores_are_found(tmp_path: Path, capacities: list[int], fast: set[int]) -> None:
    for cpu, capacity in enumerate(capacities):
        folder = tmp_path / "system" / "cpu" / f"cpu{cpu}"
        folder.mkdir(parents=True)
        (folder / "cpu_capacity").write_text(f"{capacity}\n")
    assert performance_cpus(tmp_path) == fast


@pytest.mark.skipif(not hasattr(psutil.Process(), "cpu_affinity"), reason="no affinity here")
def test_a_process_runs_where_it_was_told_to() -> None:
    one = str(min(os.sched_getaffinity(0)))
    outcome = run(one, program=(sys.executable, "-c", CODE))
    assert outcome.stdout == f"[{one}]\n", outcome.stderr


def test_a_processor_that_is_not_there_is_named() -> None:
    outcome = run("serve", "--cpus", "9999")
    assert outcome.code == 2
    assert outcome.stderr.startswith(
        "error: processor 9999 is not among those that this process may use\nhint:  they are "
    )
