"""Writing that is whole or absent: beside the target, to the disk, then renamed.

A temporary name is `.NAME.partial-PID-RANDOM`, in the target's own folder because a rename is
atomic within one file system only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from cosyvoice_cpu.errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # disk, quota, the shell's limit (ulimit -f)
_POLL_SECONDS = 0.01  # between two looks at a lock that another process has
_SHORT_WRITE = r"\d+ requested and \d+ written"


def partial_name(name: str) -> str:
    """A new temporary name beside `name`."""
    return f".{name}.partial-{os.getpid()}-{secrets.token_hex(4)}"


def is_disk_full(error: BaseException) -> bool:
    """True for a full disk or quota, also where a native writer reports it in its own words."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    text = str(error)
    # NumPy's tofile leaves the system's reason out.
    return os.strerror(errno.ENOSPC) in text or re.match(_SHORT_WRITE, text) is not None


def fsync_file(path: Path) -> None:
    """Have the content of `path` reach the disk before a rename makes it visible."""
    # Windows flushes only what is open for writing; elsewhere a read-only copy must do.
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fsync_folder(folder: Path) -> None:
    """Have the names in `folder` reach the disk. Windows has no such call and needs none."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:  # some network file systems can't; the rename is still atomic
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_file_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `content`, or what `content(file)` writes, under the name `path` only when complete.

    As `atomic_file`, and an OSError of `content` is one of writing.
    """
    with atomic_file(path) as file:
        try:
            if callable(content):
                content(file)
            else:
                file.write(content)
        except OSError as error:
            raise output_error(path, error) from error


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under the name `path` when the block ends without an error.

    An existing file is replaced, and its mode kept; a symbolic link stays and its target is
    replaced; a device or a pipe is written to directly. A failure or an interruption leaves the old
    file, or none.
    Raises: OutputError if the folder is missing or closed, `path` is a folder, or the disk is full.
    """
    target = path
    with contextlib.ExitStack() as opened:
        temporary = None
        try:
            if path.is_symlink():
                target = Path(
                    os.path.realpath(path)
                )  # Path.resolve raises RuntimeError in a circle
            if os.path.isdir(target):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if _takes_bytes_directly(target):
                file = target.open("wb")
            else:
                _remove_stale_files(target)
                temporary = target.parent / partial_name(target.name)
                opened.callback(temporary.unlink, missing_ok=True)
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
                mode = _mode_of(target)
                created = 0o666 if mode is None else 0o600  # never open to more than the old file
                file = open(os.open(temporary, flags, created), "wb")  # noqa: SIM115
                if mode is not None:
                    with contextlib.suppress(OSError):  # some file systems have no modes
                        os.chmod(temporary, mode)
                with contextlib.suppress(OSError):  # some network file systems know no locks
                    _lock(file.fileno())
            opened.callback(_close_anyway, file)
        except OSError as error:
            raise output_error(target, error) from error
        yield file
        try:
            file.flush()
            if temporary is not None:
                os.fsync(file.fileno())
                file.close()  # Windows renames no open file
                os.replace(temporary, target)
                fsync_folder(target.parent)
        except OSError as error:
            raise output_error(target, error) from error


def _close_anyway(file: BinaryIO) -> None:
    """Close after a failure, which was said already when the buffer can't be written either."""
    with contextlib.suppress(OSError):
        file.close()


_BINARY = getattr(os, "O_BINARY", 0)  # Windows would translate line ends without it


def _mode_of(target: Path) -> int | None:
    """Who may read and write the file, None if there is none yet."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return None


def _takes_bytes_directly(target: Path) -> bool:
    try:
        return not stat.S_ISREG(target.stat().st_mode)
    except FileNotFoundError:
        return False


def _remove_stale_files(target: Path) -> None:
    """Remove the temporary files of writers of `target` that were killed.

    Those are the ones whose process is gone and whose lock is free: process numbers alone would
    mislead where containers share the folder.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.partial-(\d+)-[0-9a-f]{{8}}")
    for name in os.listdir(target.parent):
        match = pattern.fullmatch(name)
        path = target.parent / name
        if not match or is_alive(int(match[1])) or path.is_symlink() or not path.is_file():
            continue
        with contextlib.suppress(OSError):  # another writer may be at it too
            handle = hold(path)
            if handle is not None:
                try:
                    path.unlink()
                finally:
                    os.close(handle)


def is_alive(pid: int) -> bool:
    """Whether a process has this number."""
    import psutil  # deferred, as every start would wait for it

    try:
        return psutil.pid_exists(pid)
    except OverflowError:  # no system counts so far
        return False


def output_error(path: Path, error: OSError) -> OutputError:
    """The plain words for a failed write to `path`."""
    if is_disk_full(error):
        return OutputError(f"{path} can't be written: the disk is full", "free some space")
    if isinstance(error, IsADirectoryError):
        return OutputError(f"{path} is a folder", "give the name of a file in it")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return OutputError(
            f"{path} can't be written: there is no folder {path.parent}", "create the folder first"
        )
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return OutputError(
            f"{path} can't be written: {path.parent} is read-only for this user",
            "choose another place",
        )
    return OutputError(f"{path} can't be written ({error.strerror})", "choose another place")


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` against other writers that take this lock; readers need not.

    For a step such as "refuse if the name exists, then write" in `speakers/`. Waits until the other
    process is done; the system frees the lock of a process that dies.
    Raises: OutputError if the folder does not exist or can't be locked.
    """
    with contextlib.ExitStack() as opened:
        try:
            handle = _open_for_lock(folder)
            opened.callback(os.close, handle)
            _lock(handle, wait=True)
        except OSError as error:
            raise output_error(folder / "*", error) from error
        yield


def hold(path: Path) -> int | None:
    """A handle whose lock on a folder or file lasts until it is closed or the process dies.

    None if another process holds it, it can't be opened, or its file system knows no locks.
    """
    handle = None
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY)  # on Windows no folder opens
        if _lock(handle):
            return handle
    if handle is not None:
        os.close(handle)
    return None


def _lock(handle: int, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; whether nobody else holds it."""
    from filelock import lock_descriptor  # deferred, as every start would wait for it

    return lock_descriptor(handle, blocking=wait, poll_interval=_POLL_SECONDS)


def _open_for_lock(folder: Path) -> int:
    """Windows opens no folders: there a file stands for it, which stays."""
    if sys.platform == "win32":
        return os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    return os.open(folder, os.O_RDONLY)
