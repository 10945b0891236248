"""What a machine can carry as a server: streams in real time, memory, and the limits that bite."""

from __future__ import annotations

from collections.abc import Iterator
from math import floor

from cosyvoice_cpu.evaluation.bench.roofline import Prediction
from cosyvoice_cpu.evaluation.doctor import MachineCheck
from cosyvoice_cpu.system.machine import Machine, gigabytes

_FEW_FILES = 1024  # open ones; the usual limit of a shell, and plenty
_OWN_FILES = 50  # of the process itself


def check_serving(
    machine: Machine, predictions: list[Prediction], open_files: int | None
) -> list[MachineCheck]:
    """A line for each recipe, then what limits a server on `machine`.

    `open_files` is how many the process may have open; None without a limit.
    """
    return [*map(_streams, predictions), *_limits(machine, open_files)]


def open_files_limit() -> int | None:
    """Of this process; None without a limit, and on Windows."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _streams(prediction: Prediction) -> MachineCheck:
    """All threads together make 1 / RTF seconds of audio a second, for one stream or several."""
    memory = f"{gigabytes(prediction.peak_rss_mb)} of memory for one"
    streams = floor(1 / prediction.rtf)
    if streams < 1:
        return MachineCheck(
            "slow",
            f"serving {prediction.recipe}: no stream in real time (RTF {prediction.rtf:.1f}),"
            f" {memory}",
            "a client that waits for whole files is served; one that listens hears gaps",
        )
    shown = "1 stream" if streams == 1 else f"{streams} streams"
    return MachineCheck(
        "note", f"serving {prediction.recipe}: {shown} in real time at once, {memory}"
    )


def _limits(machine: Machine, open_files: int | None) -> Iterator[MachineCheck]:
    quota = machine.quota_cpus
    if quota is not None:
        yield MachineCheck(
            "slow",
            f"a quota of {quota:g} CPUs stops all threads for the rest of each period once it is"
            " used up: first audio comes late by up to a period",
            "give whole CPUs instead (cpuset, --cpuset-cpus)",
        )
    if open_files is not None and open_files < _FEW_FILES:
        yield MachineCheck(
            "slow",
            f"this process may open {open_files} files, so about"
            f" {max(0, open_files - _OWN_FILES)} clients can be connected",
            "ulimit -n 4096, or LimitNOFILE= in the unit",
        )
    if machine.default_threads > 1:
        yield MachineCheck(
            "note",
            f"one worker with {machine.default_threads} threads gives the first sound soonest;"
            f" `serve --workers {machine.default_threads}` with one thread each carries most",
        )
