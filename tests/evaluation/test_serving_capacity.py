"""What a machine carries as a server, by its prediction and its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cosyvoice_cpu.evaluation.bench.roofline import Prediction
from cosyvoice_cpu.evaluation.serving_capacity import check_serving, open_files_limit
from cosyvoice_cpu.system.machine import describe_machine

MACHINE = replace(describe_machine(), quota_cpus=None, default_threads=1)


def predicted(rtf: float) -> Prediction:
    return Prediction("int8", rtf, 1.0, 1.0, 1.0, 1200.0)


@pytest.mark.parametrize(
    ("rtf", "level", "words"),
    [
        (0.3, "note", "serving int8: 3 streams in real time at once, 1.2 GB of memory for one"),
        (1.0, "note", "serving int8: 1 stream in real time at once, 1.2 GB of memory for one"),
        (2.2, "slow", "serving int8: no stream in real time (RTF 2.2), 1.2 GB of memory for one"),
    ],
)
def test_streams_are_what_the_rtf_leaves_room_for(rtf: float, level: str, words: str) -> None:
    [check] = check_serving(MACHINE, [predicted(rtf)], open_files=4096)
    assert (check.level, check.what) == (level, words)


def test_limits_that_bite_are_named() -> None:
    machine = replace(MACHINE, quota_cpus=1.5, default_threads=4)
    said = "\n".join(check.what for check in check_serving(machine, [], open_files=256))
    assert "a quota of 1.5 CPUs stops all threads" in said
    assert "may open 256 files, so about 206 clients" in said
    assert "`serve --workers 4`" in said


def test_a_machine_without_limits_gets_no_advice() -> None:
    assert check_serving(MACHINE, [], open_files=None) == []


def test_the_limit_of_open_files_is_a_number_or_none() -> None:
    limit = open_files_limit()
    assert limit is None or limit > 0
