"""The header of a safetensors file, read strictly; the tensors stay on the disk.

A name that is given twice means the first tensor to one reader and the last to another, so it is
refused, as are tensors outside the file.
Source: the format's description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

METADATA = "__metadata__"  # the format's own name for it
_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def read_header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Tensor name to its entry (`dtype`, `shape`, `data_offsets`), and where the data begin.

    Raises: ValueError saying what is wrong, OSError if the file can't be read.
    """
    header, start, size = _read_table(path)
    header.pop(METADATA, None)
    for name, entry in header.items():
        _check_place(name, entry, size - start)
    return header, start


def read_metadata(path: Path) -> dict[str, str]:
    """What the file says of itself, text by text; empty if it says nothing.

    Raises: ValueError saying what is wrong, OSError if the file can't be read.
    """
    metadata = _read_table(path)[0].get(METADATA, {})
    if not isinstance(metadata, dict) or not all(type(text) is str for text in metadata.values()):
        raise ValueError("its metadata are no table of texts")
    return metadata


def _read_table(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header as it stands, where the data begin, and the file's size in bytes."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _MAX_HEADER_BYTES:
            raise ValueError("its header is too long")
        text = file.read(length)
        size = os.fstat(file.fileno()).st_size
    try:
        header = json.loads(text, object_pairs_hook=_without_doubles)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    if not isinstance(header, dict):
        raise ValueError("its header is no table")
    return header, 8 + length, size


def _check_place(name: str, entry: Any, size: int) -> None:
    places = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(places, list) or [type(place) for place in places] != [int, int]:
        raise ValueError(f"the tensor {name!r} has no place")
    if not 0 <= places[0] <= places[1] <= size:
        raise ValueError(f"the tensor {name!r} is outside the file")


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) != len(pairs):
        raise ValueError("its header has a key twice")
    return table
