"""How many threads to compute with.

An explicit number wins, then the variable COSYVOICE_CPU_THREADS, then the default: physical cores
that this process may use, within a container's quota. Two threads on one core's hyper-threads
slow matrix products down.
"""

from __future__ import annotations

import os
from pathlib import Path

from cosyvoice_cpu.errors import UsageError

THREADS_VARIABLE = "COSYVOICE_CPU_THREADS"
_CGROUP_V2 = Path("/sys/fs/cgroup/cpu.max")
_CGROUP_V1 = Path("/sys/fs/cgroup/cpu")
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


def cpu_quota() -> float | None:
    """CPUs that the control group grants, None without a limit."""
    try:
        if _CGROUP_V2.exists():
            limit, period = _CGROUP_V2.read_text().split()[:2]
        else:
            limit = (_CGROUP_V1 / "cpu.cfs_quota_us").read_text()
            period = (_CGROUP_V1 / "cpu.cfs_period_us").read_text()
        share = int(limit) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
    return share if share > 0 else None
