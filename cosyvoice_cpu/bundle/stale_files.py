"""Stale files: what a killed process leaves, removed by the next one that makes the same.

`.NAME.partial-PID-RANDOM` is an unfinished bundle, or a folder to work in;
`.NAME.replaced-PID-RANDOM` is an old bundle, moved aside for the moment in which the new one takes
its name.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import hold, is_alive, partial_name


def replaced_name(name: str) -> str:
    """A new name beside `name` for the bundle that is replaced."""
    return f".{name}.replaced-{os.getpid()}-{secrets.token_hex(4)}"


def remove_stale_files(target: Path) -> None:
    """Remove what killed writers of `target` left; bring back a bundle caught between two renames.

    A folder is stale when its process is gone and nobody holds its lock: process numbers alone
    would mislead where containers share the folder. On Windows, which locks no folders, none is.
    """
    pattern = re.compile(rf"\.{re.escape(target.name)}\.(partial|replaced)-(\d+)-[0-9a-f]{{8}}")
    if not target.parent.is_dir():
        return
    for path in sorted(target.parent.iterdir()):
        match = pattern.fullmatch(path.name)
        if not match or path.is_symlink() or is_alive(int(match[2])):
            continue
        handle = hold(path) if path.is_dir() else None
        if handle is None:
            continue
        if match[1] == "replaced" and not target.exists():
            os.rename(path, target)
        else:
            shutil.rmtree(path, ignore_errors=True)
        os.close(handle)


@contextlib.contextmanager
def partial_folder(target: Path) -> Iterator[Path]:
    """A new folder beside `target`, to be renamed to it when it is complete, or only worked in.

    It goes with the block unless it was renamed; if the process is killed, with the next one for
    the same `target`. Raises: OSError where it can't be made.
    """
    with contextlib.suppress(OSError):  # a folder in which names can be made and not be listed
        remove_stale_files(target)
    folder = target.parent / partial_name(target.name)
    folder.mkdir()
    handle = hold(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextlib.contextmanager
def scratch_folder(purpose: str) -> Iterator[Path]:
    """A folder in the system's place for temporary files, which only this user can enter.

    It goes as a `partial_folder` does. Raises: OSError where it can't be made.
    """
    with partial_folder(Path(tempfile.gettempdir(), f"cosyvoice-cpu-{purpose}")) as folder:
        folder.chmod(0o700)
        yield folder
