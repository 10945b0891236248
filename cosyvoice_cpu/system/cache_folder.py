"""Where this user's files may go that no command names: the cache, and a private temporary folder.

A container may run under a bare number: no entry in /etc/passwd, no HOME, so no home folder and no
cache. What is only kept to be quicker next time is not kept then.
"""

from __future__ import annotations

import os
import stat
import tempfile
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


def writable_folder(name: str) -> Path | None:
    """The folder `name` in the cache, made if absent; None if this user can't write there."""
    cache = cache_folder()
    if cache is None:
        return None
    try:
        (cache / name).mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=cache / name):
            return cache / name
    except OSError:
        return None


def private_temporary_folder() -> Path:
    """A folder in the temporary one that only this user may write; the same in every process.

    Anybody can take a name in a shared temporary folder first. Then one with a random suffix is
    made, and found again later by its owner and mode.
    Raises: OSError if the temporary folder can't be written.
    """
    base = Path(tempfile.gettempdir())
    name = f"{_NAME}-{os.getuid()}" if hasattr(os, "getuid") else _NAME
    try:
        (base / name).mkdir(mode=0o700)
    except FileExistsError:
        for folder in (base / name, *sorted(base.glob(f"{name}-*"))):
            status = folder.lstat()
            if stat.S_ISDIR(status.st_mode) and is_private(status):
                return folder
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=base))
    return base / name


def is_private(status: os.stat_result) -> bool:
    """Whether the file or folder of this status is the user's own and nobody else may write it.

    Always true on Windows, whose user folders are private by their access lists.
    """
    if not hasattr(os, "getuid"):
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
