"""Dropping files from the page cache, so that loading them again reads the disk."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Sequence
from pathlib import Path

_COLD_SHARE = 0.05  # a file set counts as cold below this share of resident pages


def drop_from_cache(files: Sequence[Path]) -> bool:
    """Ask the system to forget the pages of `files`; whether it did.

    Pages that another process maps stay. False as well where the system offers no such call, or
    does not tell whether pages are resident.
    """
    if not hasattr(os, "posix_fadvise"):
        return False
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    share = resident_share(files)
    return share is not None and share < _COLD_SHARE


def resident_share(files: Sequence[Path]) -> float | None:
    """Share of the pages of `files` that are in the page cache; None if it can't be told.

    Source: mincore(2).
    """
    try:
        mincore = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError, TypeError):
        return None
    pages = resident = 0
    for path in files:
        size = path.stat().st_size
        if size == 0:
            continue
        count = -(-size // mmap.PAGESIZE)
        flags = (ctypes.c_ubyte * count)()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as view:
            anchor = ctypes.c_char.from_buffer(view)
            failed = mincore(
                ctypes.c_void_p(ctypes.addressof(anchor)), ctypes.c_size_t(size), flags
            )
            del anchor  # the mapping can't be closed while it is referred to
        if failed:
            return None
        pages += count
        resident += sum(flag & 1 for flag in flags)
    return resident / pages if pages else 0.0
