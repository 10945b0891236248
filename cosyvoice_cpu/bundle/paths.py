"""Which paths a bundle may name, and which files it may hold.

A bundle is copied between machines and file systems, so a path in it must mean the same file on all
of them: plain lower layers only, `component/file`, no way out of the folder, no second name for the
same file. What is refused here never reaches ONNX Runtime, which opens external data by itself.
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from cosyvoice_cpu.errors import BundleError

# Windows opens a device for these names, whatever the folder or the extension.
_DEVICE_NAMES = frozenset(
    ["con", "prn", "aux", "nul", "conin$", "conout$"]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in "0123456789¹²³"]
)
_FORBIDDEN_CHARACTERS = re.compile(r'[<>:"|?*\\]')  # Windows: drives, streams, wild cards, UNC
# Flags of os.open for reading a bundle's file: a link is not followed, Windows translates nothing.
READ_ONLY = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
_LONGEST_PART = 200  # bytes; file systems stop at 255 and temporary names are longer


def unsafe_part(name: str) -> str | None:
    """Why `name` can't be one part of a path in a bundle, or None if it can."""
    if name in ("", ".", ".."):
        return f"has the part {name!r}"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "has a control character"
    if forbidden := _FORBIDDEN_CHARACTERS.search(name):
        return f"has the character {forbidden[0]!r}"
    if unicodedata.normalize("NFC", name) != name:
        return "is not in Unicode form NFC"
    if name.endswith((".", " ")) or name.startswith(" "):
        return "has a part that starts or ends with a blank, or ends with a dot"
    if name.split(".", maxsplit=1)[0].rstrip().casefold() in _DEVICE_NAMES:
        return f"has the device name {name!r}"
    if len(name.encode()) > _LONGEST_PART:
        return f"has a part over {_LONGEST_PART} bytes"
    return None


def unsafe_path(path: str, folder: str) -> str | None:
    """Why `path` can't be the path of a file of component `folder`, or None if it can.

    The only form allowed is `folder/file`, with forward slashes and relative to the bundle.
    """
    if path.startswith("/"):
        return "is absolute"
    parts = path.split("/")
    for part in parts:
        if reason := unsafe_part(part):
            return reason
    if len(parts) != 2 or parts[0] != folder:
        return f"is not of the form {folder}/FILE"
    return None


def first_clash(paths: Iterable[str]) -> tuple[str, str] | None:
    """The first two paths that some file system takes for the same file, or None.

    Equal paths clash too. Case and compatibility forms are folded as macOS and Windows do, or more.
    """
    seen: dict[str, str] = {}
    for path in paths:
        key = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", path).casefold())
        if key in seen:
            return seen[key], path
        seen[key] = path
    return None


def is_link(status: os.stat_result) -> bool:
    """True for a symbolic link and, on Windows, for a junction or any other reparse point."""
    reparse = getattr(stat, "FILE_ATTRIBUTE_REPARSE_POINT", 0x400)
    return stat.S_ISLNK(status.st_mode) or bool(getattr(status, "st_file_attributes", 0) & reparse)


def check_folder(folder: Path) -> None:
    """Raises: BundleError unless `folder` is a real directory, not a link to one."""
    try:
        status = folder.lstat()
    except OSError as error:
        raise _unreadable(folder, error) from error
    if is_link(status):
        raise BundleError(
            f"{folder} is a symbolic link", "copy the bundle with its links followed (cp -rL)"
        )
    if not stat.S_ISDIR(status.st_mode):
        raise BundleError(f"{folder} is not a folder", "copy the bundle again")


def check_file(path: Path, size: int | None = None) -> os.stat_result:
    """The status of `path`, not following links.

    Raises: BundleError unless it is a regular file with one name only, and of `size` bytes if that
    is given. A hard link is refused as it may be the second name of a file outside the bundle.
    """
    try:
        status = path.lstat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if is_link(status):
        raise BundleError(
            f"{path} is a symbolic link", "copy the bundle with its links followed (cp -rL)"
        )
    if not stat.S_ISREG(status.st_mode):
        raise BundleError(f"{path} is not a regular file", "copy the bundle again")
    if status.st_nlink > 1:
        raise BundleError(
            f"{path} is a hard link (the file has {status.st_nlink} names)",
            "copy the bundle with its files duplicated (cp -r)",
        )
    if size is not None and status.st_size != size:
        raise BundleError(
            f"{path} has {status.st_size} bytes, expected {size}",
            "copy the bundle again, or rebuild it with `cosyvoice-cpu export`",
        )
    return status


def _unreadable(path: Path, error: OSError) -> BundleError:
    if isinstance(error, FileNotFoundError):
        return BundleError(
            f"{path} is missing",
            "copy the bundle again, or rebuild it with `cosyvoice-cpu export`",
        )
    return BundleError(f"{path} can't be read ({error.strerror})", "check the file's permissions")
