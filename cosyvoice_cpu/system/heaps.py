"""One heap for all threads, where the C library is glibc.

glibc gives each thread a heap of its own, up to eight per core, and a heap keeps what its largest
request took: a program that speaks in threads grows by that much per thread. Programs of ours ask
for one heap when they start. A library must not decide that for its host, so importing this package
changes nothing.
"""

from __future__ import annotations

import ctypes
import os
import sys

HEAPS_VARIABLE = "MALLOC_ARENA_MAX"  # glibc's own
_M_ARENA_MAX = -8  # malloc.h


def share_one_heap() -> bool:
    """Let all threads that start from now on allocate from one heap; whether that was done.

    It is left undone where the variable MALLOC_ARENA_MAX has decided, and where the C library
    is another one.
    """
    if os.environ.get(HEAPS_VARIABLE) or not _is_glibc():
        return False
    return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))


def give_back_freed() -> None:
    """Return to the system what was freed, where glibc keeps it for later."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def _is_glibc() -> bool:
    if sys.platform != "linux":
        return False
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):  # musl knows no such name
        return False
