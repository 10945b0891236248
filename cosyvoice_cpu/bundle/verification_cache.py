"""What was found right before, so that unchanged files need not be hashed at every start.

After a full check the size, times and inode of every file are kept in the user's cache folder, one
small JSON file per bundle. A file that still has them is taken to have the digest that was measured
then. This rests on the file system's word: whoever can write to the bundle and set its times back
(`touch`, and the clock for the change time) goes unnoticed until the next full check.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Final

import msgspec

from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.errors import OutputError

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


def recall(bundle: Path) -> dict[str, FileState]:
    """The states kept for `bundle`; empty if there are none that can be relied on."""
    path = _record_path(bundle)
    try:
        if not _is_ours(path.stat()):
            return {}
        with path.open("rb") as file:
            record = msgspec.json.decode(file.read(_MAX_BYTES), type=_Record)
    except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
        return {}
    return record.files if (record.version, record.bundle) == (_VERSION, str(bundle)) else {}


def remember(bundle: Path, files: dict[str, FileState]) -> None:
    """Keep the states of files that were just hashed; without a writable cache, nothing is kept.

    A file changed within the last two seconds is left out: it could change again without its times
    showing it.
    """
    now = time.time_ns()
    quiet = {
        path: state
        for path, state in files.items()
        if max(state.mtime_ns, state.ctime_ns) + _QUIET_NS < now
    }
    record = _Record(version=_VERSION, bundle=str(bundle), files=quiet)
    path = _record_path(bundle)
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file_atomically(path, msgspec.json.encode(record))


def cache_folder() -> Path:
    """Where this user's caches go: COSYVOICE_CPU_CACHE, or the platform's place for caches."""
    if chosen := os.environ.get("COSYVOICE_CPU_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or str(Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = str(Path.home() / "Library" / "Caches")
    else:
        base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "cosyvoice-cpu"


def _record_path(bundle: Path) -> Path:
    name = hashlib.sha256(str(bundle).encode(errors="surrogateescape")).hexdigest()[:32]
    return cache_folder() / "checked" / f"{name}.json"


def _is_ours(status: os.stat_result) -> bool:
    """Nobody else may have written the record: it says that files need no check."""
    if sys.platform == "win32":
        return True
    return status.st_uid == os.getuid() and not status.st_mode & 0o022
