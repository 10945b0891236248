"""Resident memory of a process, what must fit apart from what is mapped from files.

Anonymous memory belongs to the process; file-backed pages are shared by all processes that map the
file, and the system may drop and read them again.
"""

from __future__ import annotations

import sys
import threading
from dataclasses import dataclass
from pathlib import Path

_SAMPLE_SECONDS = 0.02


@dataclass(frozen=True)
class ResidentMemory:
    """Megabytes (1e6 bytes); None where the system does not tell (anything but Linux)."""

    anonymous_mb: float | None = None
    file_mb: float | None = None
    peak_mb: float | None = None  # the largest sum so far, as the kernel keeps it


def resident_memory(pid: int | str = "self") -> ResidentMemory:
    """The memory of process `pid` now; all None if it ended, or on another system than Linux."""
    values: dict[str, float] = {}
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in {"RssAnon", "RssFile", "VmHWM"}:
                values[name] = int(value.split()[0]) * 1024 / 1e6
    except (OSError, ValueError):
        return ResidentMemory()
    return ResidentMemory(values.get("RssAnon"), values.get("RssFile"), values.get("VmHWM"))


def own_peak_mb() -> float | None:
    """Peak resident memory of this process so far, on any Unix."""
    peak = resident_memory().peak_mb
    if peak is None and sys.platform != "win32":
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        peak = used / 1e6 if sys.platform == "darwin" else used * 1024 / 1e6
    return peak


class MemoryWatch:
    """Keeps the peaks of another process, each kind by itself, until it is stopped."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._peaks: dict[str, float] = {}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> ResidentMemory:
        """The peaks."""
        self._sample()
        self._stopped.set()
        self._thread.join()
        return ResidentMemory(
            self._peaks.get("anonymous_mb"),
            self._peaks.get("file_mb"),
            self._peaks.get("peak_mb"),
        )

    def _watch(self) -> None:
        while not self._stopped.wait(_SAMPLE_SECONDS):
            self._sample()

    def _sample(self) -> None:
        now = resident_memory(self._pid)
        for name in ("anonymous_mb", "file_mb", "peak_mb"):
            value = getattr(now, name)
            if value is not None:
                self._peaks[name] = max(value, self._peaks.get(name, 0.0))
