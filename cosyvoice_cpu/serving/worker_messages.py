"""What a server and its worker processes say to each other, over two pipes.

A message is a head of eight bytes, a JSON object of the length that the head says, and the bytes
that follow it: the samples of a block. Nothing in it can be executed.
"""

from __future__ import annotations

import struct
from typing import Any, BinaryIO

import msgspec

from cosyvoice_cpu.bundle.manifest import ComponentName

_HEAD = struct.Struct("<II")  # bytes of the object, bytes behind it
_LARGEST = 1 << 28  # bytes; a block of an hour has less


class _Message(msgspec.Struct, tag=True, forbid_unknown_fields=True):
    """Told apart by their names."""


class Setup(_Message):
    """The first to a worker: what it speaks with."""

    bundle: str
    threads: int
    speakers: str | None
    trust: bool
    engines: dict[ComponentName, str] = {}  # that take the place of the manifest's


class Open(_Message):
    """Begin a request; nothing is computed yet."""

    request: int
    text: str
    speaker: str | None
    is_whole: bool
    options: dict[str, Any]


class Next(_Message):
    """Compute the next block of a request."""

    request: int


class Close(_Message):
    """A request is not wanted any more, wherever it is."""

    request: int


class Ready(_Message):
    """The first from a worker: it has loaded."""


class Block(_Message):
    """Sound; float32 samples follow. The report is that of `synthesis.report`."""

    request: int
    sample_rate: int
    report: dict[str, Any] | None


class Done(_Message):
    """There are no more blocks."""

    request: int


class Failed(_Message):
    """A request ended with an error; request 0 is the worker itself."""

    request: int
    kind: str  # name of a class of `cosyvoice_cpu.errors`, "" for a bug
    what: str
    hint: str


ToWorker = Setup | Open | Next | Close
FromWorker = Ready | Block | Done | Failed

_to_worker = msgspec.json.Decoder(ToWorker)
_from_worker = msgspec.json.Decoder(FromWorker)


def write(pipe: BinaryIO, message: _Message, content: bytes = b"") -> None:
    """One message at once. Raises: OSError if nobody reads."""
    body = msgspec.json.encode(message)
    pipe.write(_HEAD.pack(len(body), len(content)) + body + content)
    pipe.flush()


def read_to_worker(pipe: BinaryIO) -> ToWorker | None:
    """The next message to a worker; None at the end."""
    found = _read(pipe)
    return _to_worker.decode(found[0]) if found else None


def read_from_worker(pipe: BinaryIO) -> tuple[FromWorker, bytes] | None:
    """The next message of a worker and the bytes behind it; None at the end."""
    found = _read(pipe)
    return (_from_worker.decode(found[0]), found[1]) if found else None


def _read(pipe: BinaryIO) -> tuple[bytes, bytes] | None:
    """Also None where a message is cut off: who wrote it is gone."""
    head = pipe.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    length, more = _HEAD.unpack(head)
    if max(length, more) > _LARGEST:
        return None
    body, content = pipe.read(length), pipe.read(more)
    return (body, content) if (len(body), len(content)) == (length, more) else None
