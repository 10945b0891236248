"""Stale files: what a killed writer leaves, removed by the next writer of the same bundle.

`.NAME.partial-PID-RANDOM` is an unfinished bundle; `.NAME.replaced-PID-RANDOM` is the old one,
moved aside for the moment in which the new one takes its name.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import hold, is_alive


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
