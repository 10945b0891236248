"""Resident memory by kind, and the page cache."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cosyvoice_cpu.system.memory import MemoryWatch, own_peak_mb, resident_memory
from cosyvoice_cpu.system.page_cache import drop_from_cache, resident_share

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the kinds apart")


@linux
def test_memory_of_this_process_is_told_by_kind() -> None:
    memory = resident_memory()
    assert memory.anonymous_mb and memory.file_mb and memory.peak_mb
    assert memory.peak_mb >= memory.anonymous_mb


@linux
def test_an_array_counts_as_anonymous_and_a_mapped_file_as_file_backed(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(40_000_000))
    before = resident_memory()
    # Not np.ones: it may get memory that earlier tests gave back and the process still holds.
    anonymous = mmap.mmap(-1, 40_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = np.frombuffer(anonymous, np.uint8)
    array[:] = 1
    mapped = np.memmap(tmp_path / "weights", np.uint8, "r")
    assert int(array[-1]) + int(mapped.max()) == 1
    after = resident_memory()
    assert (after.anonymous_mb or 0) - (before.anonymous_mb or 0) == pytest.approx(40, abs=4)
    assert (after.file_mb or 0) - (before.file_mb or 0) == pytest.approx(40, abs=4)


def test_a_peak_stays_when_the_memory_is_given_back() -> None:
    now = own_peak_mb() or 0
    array = np.ones(int(now * 1e6), np.uint8)
    assert array.all()
    del array
    assert (own_peak_mb() or 0) > 1.2 * now


def test_a_process_that_ended_has_no_memory() -> None:
    assert resident_memory(pid=2**22 + 1).peak_mb is None


def test_the_peak_of_another_process_is_watched_until_it_ends() -> None:
    code = "import sys; x = bytearray(b'x' * 50_000_000); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    watch = MemoryWatch(process.pid)
    process.communicate(timeout=60)
    assert (watch.stop().peak_mb or 0) > 50


def test_a_file_is_in_the_page_cache_until_it_is_dropped(tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(1_000_000))
    if resident_share([file]) is None:
        pytest.skip("this system has no mincore")
    assert resident_share([file]) == 1.0
    share = resident_share([file]) if drop_from_cache([file]) else 0.0
    assert share is not None and share < 0.05
