"""How many threads to compute with.

An explicit number wins, then the variable COSYVOICE_CPU_THREADS, then the default: physical cores
that this process may use, within its control group's quota. Two threads on one core's hyper-threads
slow matrix products down.
"""

from __future__ import annotations

import os
from pathlib import Path

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.system.control_groups import cpu_quota

THREADS_VARIABLE = "COSYVOICE_CPU_THREADS"
# Threads that wait for a processor while others spin: 1024 on two processors stall for minutes.
_MOST_PER_CPU = 4
_LEAST_LIMIT = 16
_TOPOLOGY = Path("/sys/devices/system/cpu")


def resolve_threads(threads: int | None = None) -> int:
    """The number to use. Raises: UsageError for a number below 1 or a variable that is none."""
    if threads is None and (text := os.environ.get(THREADS_VARIABLE, "").strip()):
        try:
            threads = int(text)
        except ValueError:
            raise UsageError(
                f"{THREADS_VARIABLE} is {text!r}, not a number", "set it to 1 or more, or unset it"
            ) from None
    if threads is None:
        return default_threads()
    most = max(_LEAST_LIMIT, _MOST_PER_CPU * len(usable_cpus()))
    if not 1 <= threads <= most:
        raise UsageError(f"{threads} threads can't be used", f"give a number from 1 to {most}")
    return threads


def default_threads() -> int:
    """Usable physical cores, at most the quota, at least 1."""
    cores = len(physical_cores(usable_cpus()))
    quota = cpu_quota()
    return max(1, min(cores, int(quota)) if quota else cores)


def usable_cpus() -> set[int]:
    """Logical CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))


def physical_cores(cpus: set[int]) -> set[str]:
    """One name for each core of `cpus`; a CPU of unknown topology counts as a core."""
    cores = set()
    for cpu in cpus:
        siblings = _TOPOLOGY / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        try:
            cores.add(siblings.read_text().strip())
        except OSError:
            cores.add(f"cpu{cpu}")
    return cores
