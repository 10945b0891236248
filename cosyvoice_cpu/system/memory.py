"""Resident memory of a process, what must fit apart from what is mapped from files.

Anonymous memory belongs to the process; file-backed pages are shared by all processes that map the
file, and the system may drop and read them again.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from dataclasses import astuple, dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class ResidentMemory:
    """Megabytes (1e6 bytes); None where the system does not tell."""

    anonymous_mb: float | None = None  # Linux only
    file_mb: float | None = None  # Linux only
    peak_mb: float | None = None  # the largest sum so far; the sum now where no peak is kept


def resident_memory(pid: int | None = None) -> ResidentMemory:
    """The memory of process `pid` now, by default this one; all None if it ended."""
    import psutil  # deferred, as every start would wait for it

    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return ResidentMemory()
    shared = getattr(memory, "shared", None)
    return ResidentMemory(
        anonymous_mb=None if shared is None else (memory.rss - shared) / 1e6,
        file_mb=None if shared is None else shared / 1e6,
        peak_mb=max(memory.rss, _peak_bytes(pid, memory)) / 1e6,
    )


def own_peak_mb() -> float | None:
    """Peak resident memory of this process so far, in megabytes; None on Linux without /proc."""
    return resident_memory().peak_mb


def _peak_bytes(pid: int | None, memory: object) -> int:
    """The peak that the system keeps, 0 if it keeps none that can be asked for."""
    if sys.platform == "linux":  # psutil leaves it out
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{pid or 'self'}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    elif sys.platform != "win32" and pid is None:
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
    return int(getattr(memory, "peak_wset", 0))  # Windows


class MemoryWatch:
    """Keeps the peaks of another process, each kind by itself, until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks = ResidentMemory()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> ResidentMemory:
        """The peaks."""
        self._stopped.set()
        self._thread.join()
        self._sample()
        return self._peaks

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        now = resident_memory(self._pid)
        pairs = zip(astuple(self._peaks), astuple(now), strict=True)
        known = ([value for value in pair if value is not None] for pair in pairs)
        self._peaks = ResidentMemory(*(max(values, default=None) for values in known))
