"""The verification cache: what was found right is not hashed again while it stays as it was.

After a full check the size, times and inode of every file are kept in the user's cache folder, one
small JSON file per bundle. A file that still has them is taken to have the digest that was measured
then. This rests on the file system's word: whoever can write to the bundle and set its times back
(`touch`, and the clock for the change time) goes unnoticed until the next full check.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.errors import OutputError
from cosyvoice_cpu.system.cache_folder import cache_folder, read_cached

_MAX_BYTES = 2**22
_QUIET_NS: Final = 2_000_000_000  # coarser than any file system's clock (FAT: 2 s)


class FileState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What changes when a file does, and the digest that went with it."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    sha256: str


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The states of one bundle's files, by path relative to the bundle."""

    version: int
    bundle: str
    files: dict[str, FileState]


_VERSION = 1


def state_of(status: os.stat_result, sha256: str) -> FileState:
    """The state of a file with this status and this digest."""
    return FileState(
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        ctime_ns=status.st_ctime_ns,
        inode=status.st_ino,
        sha256=sha256,
    )


def look_up(bundle: Path) -> dict[str, FileState]:
    """The states kept for `bundle`; empty if there are none that can be relied on."""
    path = _record_path(bundle)
    if path is None:
        return {}
    content = read_cached(path, _MAX_BYTES)
    if content is None:
        return {}
    try:
        record = msgspec.json.decode(content, type=_Record)
    except (ValueError, msgspec.MsgspecError, RecursionError):
        return {}
    return record.files if (record.version, record.bundle) == (_VERSION, str(bundle)) else {}


def store(bundle: Path, files: dict[str, FileState]) -> None:
    """Keep the states of files that were just hashed; without a writable cache, nothing is kept.

    A file changed within the last two seconds is left out: it could change again without its times
    showing it.
    """
    path = _record_path(bundle)
    if path is None:
        return
    now = time.time_ns()
    quiet = {
        name: state
        for name, state in files.items()
        if max(state.mtime_ns, state.ctime_ns) + _QUIET_NS < now
    }
    record = _Record(version=_VERSION, bundle=str(bundle), files=quiet)
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file_atomically(path, msgspec.json.encode(record))


def _record_path(bundle: Path) -> Path | None:
    cache = cache_folder()
    if cache is None:
        return None
    name = hashlib.sha256(str(bundle).encode(errors="surrogateescape")).hexdigest()[:32]
    return cache / "checked" / f"{name}.json"
