"""Where this user's files may go that no command names: the cache.

A container may run under a bare number: no entry in /etc/passwd, no HOME, so no home folder and no
cache. What is only kept to be quicker next time is not kept then.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

import platformdirs

CACHE_VARIABLE = "COSYVOICE_CPU_CACHE"
_NAME = "cosyvoice-cpu"


def cache_folder() -> Path | None:
    """COSYVOICE_CPU_CACHE, or the platform's place for caches; None if the user has no home folder.

    It may be absent, or closed for this user: callers expect an OSError when they write there.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen)
    try:
        folder = platformdirs.user_cache_path(_NAME, appauthor=False, opinion=False)
    except RuntimeError:
        return None
    return folder if folder.is_absolute() else None  # older releases leave "~" as it is


def read_cached(path: Path, most: int) -> bytes | None:
    """The content of a file in the cache; None if there is none that can be relied on.

    That is a regular file (a pipe would be waited for) of at most `most` bytes, which nobody but
    this user may write.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > most or not is_private(status):
            return None
        with path.open("rb") as file:
            return file.read(most)
    except OSError:
        return None


def is_private(status: os.stat_result) -> bool:
    """Whether the file or folder of this status is the user's own and nobody else may write it.

    Always true on Windows, whose user folders are private by their access lists.
    """
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
