"""The header of a safetensors file, read strictly; the tensors stay on the disk.

A name that is given twice means the first tensor to one reader and the last to another, so it is
refused, as are tensors outside the file.
Source: the format's description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cosyvoice_cpu.bundle.strict_json import parse_json

METADATA = "__metadata__"  # the format's own name for it
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class Header:
    """What a file holds, and what it says of itself, text by text."""

    tensors: dict[str, dict[str, Any]]  # name to `dtype`, `shape`, `data_offsets` from `start` on
    metadata: dict[str, str]
    start: int  # bytes from the file's beginning


def read_header(path: Path) -> Header:
    """The header of the file at `path`.

    Raises: ValueError saying what is wrong, OSError if the file can't be read.
    """
    with path.open("rb") as file:
        return parse_header(file, os.fstat(file.fileno()).st_size)


def parse_header(file: BinaryIO, size: int) -> Header:
    """The header at the beginning of an open file of `size` bytes. Raises: ValueError."""
    length = int.from_bytes(file.read(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError("its header is too long")
    if 8 + length > size:
        raise ValueError("it is truncated")
    try:
        entries = parse_json(file.read(length))
    except ValueError as error:
        raise ValueError(f"its header is not valid: {error}") from None
    if not isinstance(entries, dict):
        raise ValueError("its header is no table")
    metadata = entries.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("its metadata are no table of texts")
    for name, entry in entries.items():
        _check_place(name, entry, size - 8 - length)
    return Header(entries, metadata, 8 + length)


def with_sorted_metadata(content: bytes) -> bytes:
    """The same file with its texts in the order of their names.

    The library writes them in an order that differs from one process to the next.
    """
    start = 8 + int.from_bytes(content[:8], "little")
    entries = json.loads(content[8:start])
    entries[METADATA] = dict(sorted(entries[METADATA].items()))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _check_place(name: str, entry: Any, size: int) -> None:
    places = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(places, list) or [type(place) for place in places] != [int, int]:
        raise ValueError(f"the tensor {name!r:.200} has no place")
    if not 0 <= places[0] <= places[1] <= size:
        raise ValueError(f"the tensor {name!r:.200} is outside the file")
