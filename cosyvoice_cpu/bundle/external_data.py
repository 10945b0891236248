"""Where the tensors of an ONNX graph lie in other files, and the same graph with other places.

Beside a tensor's own data ONNX Runtime stores forms of it that a kernel packed: each is an entry
`prepacked_N` of `KEY|OFFSET;LENGTH;FLAG|…`, in the file of the tensor. Only tensors of the main
graph are looked at, since no other has external data there.
Source: onnx/onnx.proto3; onnxruntime/core/framework/tensor_external_data_info.cc in the ONNX
Runtime repository.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from cosyvoice_cpu.bundle.protobuf import Field, MalformedError, as_text, read_fields

_ALL: Final = range(1, 2**29)
_BYTES: Final = 2  # wire type of messages and strings
_TO_TENSORS: Final = (7, 5)  # ModelProto.graph, GraphProto.initializer
_NAME, _EXTERNAL_DATA = 8, 13  # of TensorProto
_KEY, _VALUE = 1, 2  # of StringStringEntryProto
_PACKED = "prepacked_"


class Extent(NamedTuple):
    """Bytes of a file. `flag` is ONNX Runtime's and stays as it is."""

    offset: int
    length: int
    flag: str = ""


class PackedForm(NamedTuple):
    """What a kernel made of a tensor: its key, and its buffers."""

    key: str
    buffers: tuple[Extent, ...]


class StoredTensor(NamedTuple):
    """A tensor with data in the file `location`, and forms of it in the same file."""

    name: str
    location: str
    data: Extent
    packed: tuple[PackedForm, ...]

    @property
    def extents(self) -> list[Extent]:
        """All bytes that belong to it, its data first."""
        return [self.data, *(buffer for form in self.packed for buffer in form.buffers)]

    def moved(self, location: str, offsets: Sequence[int]) -> StoredTensor:
        """The same with its `extents` at other offsets of another file."""
        to = iter(offsets)
        data = self.data._replace(offset=next(to))
        packed = tuple(
            PackedForm(form.key, tuple(b._replace(offset=next(to)) for b in form.buffers))
            for form in self.packed
        )
        return StoredTensor(self.name, location, data, packed)


Place = Callable[[StoredTensor], StoredTensor]


def stored_tensors(graph: bytes) -> list[StoredTensor]:
    """The tensors of `graph` that lie in other files. Raises: MalformedError."""
    found: list[StoredTensor] = []

    def note(tensor: StoredTensor) -> StoredTensor:
        found.append(tensor)
        return tensor

    relocated(graph, note)
    return found


def relocated(graph: bytes, place: Place) -> bytes:
    """The graph with each tensor that lies in another file where `place` puts it.

    Raises: MalformedError for bytes that are no such graph.
    """
    return _rebuilt(graph, 0, len(graph), _TO_TENSORS, place)


def _rebuilt(graph: bytes, start: int, end: int, way: Sequence[int], place: Place) -> bytes:
    """The message in these bytes, with the tensors at the end of the `way` of fields placed."""
    if not way:
        return _placed(graph, start, end, place)
    parts, copied = [], start
    for field in read_fields(graph, start, end, _ALL):
        if field.number == way[0] and field.wire_type == _BYTES:
            inner = _rebuilt(graph, field.low, field.high, way[1:], place)
            parts.append(_field(field.number, inner))
        else:
            parts.append(graph[copied : field.high])
        copied = field.high
    return b"".join(parts)


def _placed(graph: bytes, start: int, end: int, place: Place) -> bytes:
    name, entries, parts, copied = "", dict[str, str](), [], start
    for field in read_fields(graph, start, end, _ALL):
        if field.number == _EXTERNAL_DATA:
            key, value = _entry(graph, field)
            entries[key] = value
        else:
            if field.number == _NAME:
                name = as_text(graph, field)
            parts.append(graph[copied : field.high])
        copied = field.high
    if entries:
        parts += [
            _field(_EXTERNAL_DATA, _field(_KEY, key.encode()) + _field(_VALUE, value.encode()))
            for key, value in _entries(place(_tensor(name, entries))).items()
        ]
    return b"".join(parts)


def _tensor(name: str, entries: dict[str, str]) -> StoredTensor:
    try:
        return StoredTensor(
            name,
            entries["location"],
            Extent(int(entries.get("offset", "0")), int(entries["length"])),
            tuple(_form(value) for key, value in entries.items() if key.startswith(_PACKED)),
        )
    except (KeyError, ValueError) as error:
        raise MalformedError(f"external data of {name}: {error}") from None


def _form(value: str) -> PackedForm:
    key, *buffers = value.split("|")
    extents = []
    for buffer in buffers:
        offset, length, flag = buffer.split(";")
        extents.append(Extent(int(offset), int(length), flag))
    return PackedForm(key, tuple(extents))


def _entries(tensor: StoredTensor) -> dict[str, str]:
    forms = (
        "|".join([form.key, *(f"{b.offset};{b.length};{b.flag}" for b in form.buffers)])
        for form in tensor.packed
    )
    return {
        "location": tensor.location,
        "offset": str(tensor.data.offset),
        "length": str(tensor.data.length),
        **{f"{_PACKED}{number}": form for number, form in enumerate(forms)},
    }


def _entry(graph: bytes, field: Field) -> tuple[str, str]:
    texts = {
        inner.number: as_text(graph, inner)
        for inner in read_fields(graph, field.low, field.high, (_KEY, _VALUE))
    }
    return texts.get(_KEY, ""), texts.get(_VALUE, "")


def _field(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    digits.append(value)
    return bytes(digits)
