"""One heap for all threads."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from cosyvoice_cpu.system.heaps import HEAPS_VARIABLE, share_one_heap

glibc = pytest.mark.skipif(
    sys.platform != "linux" or "CS_GNU_LIBC_VERSION" not in os.confstr_names,
    reason="heaps per thread are glibc's",
)
_PROGRAM = """
import ctypes, threading
{setup}
barrier = threading.Barrier(4)
def allocate():
    kept = [bytearray(5000 + number) for number in range(20)]
    barrier.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
ctypes.CDLL(None).malloc_stats()
"""
_SHARED = "from cosyvoice_cpu.system.heaps import share_one_heap; print(share_one_heap())"


def _heaps(setup: str, **variables: str) -> tuple[int, str]:
    """Heaps of a program in which four threads allocate, and what its setup printed."""
    environment = {name: value for name, value in os.environ.items() if name != HEAPS_VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(setup=setup)],
        env=environment | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return len(re.findall(r"^Arena \d+:", done.stderr, re.MULTILINE)), done.stdout.strip()


@glibc
def test_threads_have_heaps_of_their_own_until_one_is_asked_for() -> None:
    assert _heaps("pass")[0] > 1
    assert _heaps(_SHARED) == (1, "True")


@glibc
def test_the_operators_own_number_of_heaps_stays() -> None:
    heaps, printed = _heaps(_SHARED, **{HEAPS_VARIABLE: "3"})
    assert printed == "False"
    assert 1 < heaps <= 3


def test_other_c_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(HEAPS_VARIABLE, raising=False)
    monkeypatch.setattr(sys, "platform", "win32")
    assert not share_one_heap()


@glibc
def test_what_was_freed_goes_back_to_the_system() -> None:
    program = (
        "from cosyvoice_cpu.system.heaps import give_back_freed\n"
        "from cosyvoice_cpu.system.memory import resident_memory\n"
        "kept = [bytearray(100_000) for _ in range(1000)]\n"
        "pins = [bytearray(600 + i) for i in range(1000)]\n"
        "del kept\n"
        "before = resident_memory().anonymous_mb\n"
        "give_back_freed()\n"
        "print(before - resident_memory().anonymous_mb)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert float(done.stdout) > 50
