"""SHA-256 of large files, several at a time."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from io import FileIO
from pathlib import Path

from cosyvoice_cpu.bundle.paths import READ_ONLY
from cosyvoice_cpu.errors import BundleError

_CHUNK = 2**20  # bytes; large enough that hashlib works without the interpreter lock
_THREADS = min(4, os.cpu_count() or 1)


def sha256_of_stream(file: FileIO) -> str:
    """The SHA-256 of what is left of an unbuffered file, in lower-case hex. Raises: OSError."""
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(_CHUNK))
    while count := file.readinto(buffer):
        digest.update(buffer[:count])
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a bundle's file; a symbolic link is not followed.

    Raises: BundleError if the file can't be read.
    """
    try:
        with open(os.open(path, READ_ONLY), "rb", buffering=0) as file:
            return sha256_of_stream(file)
    except OSError as error:
        raise BundleError(
            f"{path} can't be read ({error.strerror})", "check the file's permissions"
        ) from error


def sha256_of_files(paths: Iterable[Path]) -> list[str]:
    """The SHA-256 of each file, in order; hashing leaves the interpreter lock, so threads help."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(sha256_of, paths))
