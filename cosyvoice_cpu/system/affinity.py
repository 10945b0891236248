"""Which processors this process may run on, chosen by the user.

Set before the engines start their threads, which inherit it; the number of threads follows
(`system.threads`).
"""

from __future__ import annotations

import re
from pathlib import Path

import psutil

from cosyvoice_cpu.errors import UsageError

PERFORMANCE = "performance"
_PART = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_DEVICES = Path("/sys/devices")


def use_cpus(wanted: str) -> set[int]:
    """Run on the processors that `wanted` lists, as "0-3,8", or on the "performance" cores.

    Returns their numbers. Raises: UsageError for what is no list, for processors that this process
    may not use, and where the system can't do it (macOS) or does not tell the cores apart.
    """
    process = psutil.Process()
    if not hasattr(process, "cpu_affinity"):
        raise UsageError("this system ties no process to processors", "leave --cpus out")
    allowed = set(process.cpu_affinity())
    if wanted == PERFORMANCE:
        chosen = performance_cpus() & allowed
        if not chosen:
            raise UsageError(
                "this system names no performance cores", "list processors, as in --cpus 0-3"
            )
    else:
        chosen = parse_cpus(wanted)
        if beyond := sorted(chosen - allowed):
            raise UsageError(
                f"processor {beyond[0]} is not among those that this process may use",
                f"they are {shown_cpus(allowed)}",
            )
    process.cpu_affinity(sorted(chosen))
    return chosen


def parse_cpus(text: str) -> set[int]:
    """The numbers that a list such as "0-3,8" names. Raises: UsageError."""
    found: set[int] = set()
    for part in text.split(","):
        match = _PART.fullmatch(part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if first > last:
            raise UsageError(f"{text!r} lists no processors", "write them as in 0-3,8")
        found.update(range(first, last + 1))
    return found


def shown_cpus(cpus: set[int]) -> str:
    """The shortest list of `cpus`, as "0-3,8"."""
    parts: list[list[int]] = []
    for cpu in sorted(cpus):
        if parts and cpu == parts[-1][1] + 1:
            parts[-1][1] = cpu
        else:
            parts.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in parts)


def performance_cpus(devices: Path = _DEVICES) -> set[int]:
    """Those of the fast kind, where a processor has two kinds and Linux tells; else none.

    Source: Linux, Documentation/ABI/testing/sysfs-devices-system-cpu (cpu_capacity) and
    sysfs-bus-event_source-devices (cpu_core, of Intel's hybrids).
    """
    try:
        return parse_cpus((devices / "cpu_core" / "cpus").read_text().strip())
    except (OSError, UsageError):
        pass
    capacities: dict[int, int] = {}
    for file in (devices / "system" / "cpu").glob("cpu[0-9]*/cpu_capacity"):
        try:
            capacities[int(file.parent.name.removeprefix("cpu"))] = int(file.read_text())
        except (OSError, ValueError):
            continue
    if len(set(capacities.values())) < 2:
        return set()
    return {cpu for cpu, capacity in capacities.items() if capacity == max(capacities.values())}
