"""The header of a safetensors file, read strictly; the tensors stay on the disk.

A name that is given twice means the first tensor to one reader and the last to another, so it is
refused, as are tensors outside the file, of another size than their shape, over one another, or
with gaps between them: what the format's own library refuses.
Source: the format's description, github.com/huggingface/safetensors.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cosyvoice_cpu.bundle.strict_json import parse_json

METADATA = "__metadata__"  # the format's own name for it
# The format allows 100 MB, of which a reader makes a gigabyte of objects. A model's has 0.1 MB.
_MAX_HEADER_BYTES = 10_000_000
_MOST_TENSORS = 20_000
_MOST_BITS = 1 << 63  # that NumPy can address, also where another axis is 0
_MOST_AXES = 64
_BITS = {  # of a number of each type that the format knows
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


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
    if len(entries) > _MOST_TENSORS:
        raise ValueError(f"it has {len(entries)} tensors, more than {_MOST_TENSORS}")
    data = size - 8 - length
    _check_places([_place(name, entry, data) for name, entry in entries.items()], data)
    return Header(entries, metadata, 8 + length)


def _place(name: str, entry: Any, size: int) -> tuple[int, int, str]:
    """Where in `size` bytes a tensor begins and ends, and its name. Raises: ValueError."""
    place = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(place, list) or [type(n) for n in place] != [int, int]:
        raise ValueError(f"the tensor {name!r:.200} has no place")
    if not 0 <= place[0] <= place[1] <= size:
        raise ValueError(f"the tensor {name!r:.200} is outside the file")
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"the tensor {name!r:.200} has not exactly type, shape and place")
    bits, shape = _BITS.get(str(entry["dtype"])), entry["shape"]
    if bits is None:
        raise ValueError(f"the tensor {name!r:.200} is of the unknown type {entry['dtype']!r:.80}")
    if not isinstance(shape, list) or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError(f"the tensor {name!r:.200} has no shape")
    if math.prod(max(n, 1) for n in shape[:_MOST_AXES]) * bits >= _MOST_BITS:
        raise ValueError(f"the tensor {name!r:.200} has an axis that can't be")
    if len(shape) > _MOST_AXES or math.prod(shape) * bits != (place[1] - place[0]) * 8:
        raise ValueError(f"the tensor {name!r:.200} has a place of another size than its shape")
    return place[0], place[1], name


def _check_places(places: list[tuple[int, int, str]], size: int) -> None:
    """Raises: ValueError unless the tensors fill the `size` bytes, each byte once."""
    position = 0
    for start, end, name in sorted(places):
        if start != position:
            raise ValueError(f"the tensor {name!r:.200} overlaps another, or leaves a gap")
        position = end
    if position != size:
        raise ValueError("it has bytes that belong to no tensor")


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
