"""Find every file that an ONNX graph would have ONNX Runtime open, without the onnx package.

A tensor may keep its data in another file: TensorProto.external_data names it, with an offset and a
length. That has been a way to read files outside the model's folder, to write them, and to point
into the process's memory, so each reference is checked here before ONNX Runtime sees the graph: it
must name a listed file of the same folder, and lie inside it.

Only the messages on the way to a tensor are entered; inline weights are stepped over without being
read. Where two readers could understand a message differently (a singular field given twice), it is
refused. Source: onnx/onnx.proto3 and docs/ExternalData.md in the ONNX repository.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Final, NamedTuple

from cosyvoice_cpu.bundle.paths import READ_ONLY, unsafe_part
from cosyvoice_cpu.bundle.protobuf import (
    Field,
    MalformedError,
    as_number,
    as_numbers,
    as_text,
    expect_message,
    read_fields,
)
from cosyvoice_cpu.errors import BundleError

_DEEPEST = 64  # nested messages; protobuf itself stops at 100
_MOST_AXES = 32
_DECIMAL = re.compile(r"[0-9]{1,19}")
_MEMORY_TAG = "*/_ORT_MEM_ADDR"  # ONNX Runtime's mark: the offset is an address in the process


class _Child(NamedTuple):
    """What a field on the way to a tensor holds."""

    message: str
    repeated: bool


_SCHEMA: Final[dict[str, dict[int, _Child]]] = {
    "ModelProto": {
        7: _Child("GraphProto", False),
        20: _Child("TrainingInfoProto", True),
        25: _Child("FunctionProto", True),
    },
    "TrainingInfoProto": {1: _Child("GraphProto", False), 2: _Child("GraphProto", False)},
    "FunctionProto": {7: _Child("NodeProto", True), 11: _Child("AttributeProto", True)},
    "GraphProto": {
        1: _Child("NodeProto", True),
        5: _Child("TensorProto", True),
        15: _Child("SparseTensorProto", True),
    },
    "NodeProto": {5: _Child("AttributeProto", True)},
    "AttributeProto": {
        5: _Child("TensorProto", False),
        6: _Child("GraphProto", False),
        10: _Child("TensorProto", True),
        11: _Child("GraphProto", True),
        22: _Child("SparseTensorProto", False),
        23: _Child("SparseTensorProto", True),
    },
    "SparseTensorProto": {1: _Child("TensorProto", False), 2: _Child("TensorProto", False)},
}

# Fields of TensorProto
_DIMS, _DATA_TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14
_INLINE_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})
_SINGULAR = frozenset({_DATA_TYPE, _NAME, _DATA_LOCATION})
_TENSOR_FIELDS = _SINGULAR | _INLINE_DATA | {_DIMS, _EXTERNAL_DATA}
_EXTERNAL = 1  # the value of data_location
_KEYS = frozenset({"location", "offset", "length", "checksum"})

# Bits of one element, by TensorProto.DataType. Strings (8) can't be external.
_BITS: Final = {
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
}


@dataclass(frozen=True)
class ExternalTensor:
    """A tensor whose data lies in another file: `length` bytes from `offset` on."""

    name: str
    location: str
    offset: int
    length: int


class _UnsafeError(ValueError):
    """A reference that ONNX Runtime must not follow."""


def scan_onnx(path: Path, files: Mapping[str, int]) -> list[ExternalTensor]:
    """Every external tensor of the graph at `path`.

    `files` maps each file name that is listed in the graph's folder to its size in bytes.
    Raises: BundleError naming the graph and the tensor if a reference is unsafe, does not name one
    of `files` or does not lie inside it, and BundleError if the file is no ONNX graph.
    """
    try:
        with open(os.open(path, READ_ONLY), "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise MalformedError("it is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                scan = _Scan(content, files)
                scan.message(0, len(content), "ModelProto", 0)
                return scan.found
    except OSError as error:
        raise BundleError(
            f"{path} can't be read ({error.strerror})", "check the file's permissions"
        ) from error
    except MalformedError as error:
        raise BundleError(
            f"{path} is not a valid ONNX graph: {error}",
            "copy the bundle again, or rebuild it with `cosyvoice-cpu export`",
        ) from error
    except _UnsafeError as error:
        raise BundleError(
            f"{path}: {error}", "do not use this bundle; get it from a source you trust"
        ) from error


class _Scan:
    """One walk over the bytes of one graph."""

    def __init__(self, content: mmap.mmap, files: Mapping[str, int]) -> None:
        self.content = content
        self.files = files
        self.found: list[ExternalTensor] = []
        self._unsafe_location = lru_cache(partial(_unsafe_location, files=files))

    def message(self, start: int, end: int, kind: str, depth: int) -> None:
        """Walk a message of the type `kind` and check every tensor inside."""
        if depth > _DEEPEST:
            raise MalformedError(f"messages are nested over {_DEEPEST} deep")
        if kind == "TensorProto":
            self._tensor(start, end)
            return
        children, seen = _SCHEMA[kind], set()
        for field in read_fields(self.content, start, end, children):
            child = children[field.number]
            expect_message(field)
            if not child.repeated and field.number in seen:
                raise MalformedError(f"field {field.number} of {kind} is given twice")
            seen.add(field.number)
            self.message(field.low, field.high, child.message, depth + 1)
        if kind == "ModelProto" and 7 not in seen:
            raise MalformedError("it holds no graph")

    def _tensor(self, start: int, end: int) -> None:
        singular: dict[int, Field] = {}
        dims: list[int] = []
        entries: list[tuple[str, str]] = []
        inline = False
        for field in read_fields(self.content, start, end, _TENSOR_FIELDS):
            if field.number in _SINGULAR:
                if field.number in singular:
                    raise MalformedError(f"field {field.number} of TensorProto is given twice")
                singular[field.number] = field
            elif field.number == _EXTERNAL_DATA:
                entries.append(self._entry(field))
            elif field.number == _DIMS:
                dims += as_numbers(self.content, field)
            else:
                inline = True
        location = as_number(singular[_DATA_LOCATION]) if _DATA_LOCATION in singular else 0
        if not entries and location == 0:
            return
        name = as_text(self.content, singular[_NAME]) if _NAME in singular else ""
        data_type = as_number(singular[_DATA_TYPE]) if _DATA_TYPE in singular else 0
        if location != _EXTERNAL or not entries:
            raise _UnsafeError(f"tensor {name!r} is external in one field and inline in another")
        if inline:
            raise _UnsafeError(f"tensor {name!r} has both inline and external data")
        needed = _bytes_of(name, data_type, dims)
        self.found.append(self._checked(name, entries, needed))

    def _entry(self, field: Field) -> tuple[str, str]:
        """A StringStringEntryProto as (key, value)."""
        expect_message(field)
        parts = {1: "", 2: ""}
        seen = set()
        for part in read_fields(self.content, field.low, field.high, parts):
            if part.number in seen:
                raise MalformedError("an external_data entry has two keys or two values")
            seen.add(part.number)
            parts[part.number] = as_text(self.content, part)
        return parts[1], parts[2]

    def _checked(self, name: str, entries: list[tuple[str, str]], needed: int) -> ExternalTensor:
        """The reference made by `entries`, for a tensor of `needed` bytes. Raises: _UnsafeError."""
        values: dict[str, str] = {}
        for key, value in entries:
            if key not in _KEYS:
                raise _UnsafeError(f"tensor {name!r} has the external_data key {key!r}")
            if key in values:
                raise _UnsafeError(f"tensor {name!r} has the external_data key {key!r} twice")
            values[key] = value
        location = values.get("location", "")
        if reason := self._unsafe_location(location):
            raise _UnsafeError(
                f"tensor {name!r} has the external data {location!r}, which {reason}"
            )
        for key in ("offset", "length"):
            if key in values and not _DECIMAL.fullmatch(values[key]):
                raise _UnsafeError(f"tensor {name!r} has the {key} {values[key]!r}")
        offset = int(values.get("offset", "0"))
        length = int(values.get("length", str(needed)))
        if offset + length > self.files[location]:
            raise _UnsafeError(
                f"tensor {name!r} takes bytes {offset} to {offset + length} of {location!r},"
                f" which has {self.files[location]}"
            )
        if length != needed:
            raise _UnsafeError(f"tensor {name!r} has {length} bytes of external data, not {needed}")
        return ExternalTensor(name, location, offset, length)


def _bytes_of(name: str, data_type: int, dims: list[int]) -> int:
    """How many bytes the shape takes; numbers of 2^63 and over are protobuf's negative ones."""
    if data_type not in _BITS:
        raise _UnsafeError(f"tensor {name!r} is external and has the data type {data_type}")
    if len(dims) > _MOST_AXES or any(dim >= 2**63 for dim in dims):
        raise _UnsafeError(f"tensor {name!r} has a shape that no tensor has")
    return (math.prod(dims) * _BITS[data_type] + 7) // 8


def _unsafe_location(location: str, files: Mapping[str, int]) -> str | None:
    if location.startswith(_MEMORY_TAG):
        return "points into the memory of the process"
    if location.startswith("/"):
        return "is absolute"
    for part in location.split("/"):
        if reason := unsafe_part(part):
            return reason
    if "/" in location:
        return "is in another folder"
    return None if location in files else "is not listed in the graph's folder"
