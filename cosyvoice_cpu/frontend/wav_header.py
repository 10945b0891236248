"""Sizes in WAV headers that are placeholders or slightly wrong, and what they should be.

A writer that can't seek back leaves 0 or a huge number as the size of the samples; others count the
header in, or forget a byte of padding. libsndfile takes such a size at its word.
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

PLACEHOLDER = 1_000_000_000  # bytes; no clip has as many, and a writer of a stream claims no fewer
SMALL_LIE = 4096  # bytes, some 0.05 s: more than any header, less than what a broken copy lacks
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class WavSizes:
    """What a RIFF header says of its samples, and what there is."""

    place: int  # of the four bytes that hold the size
    declared: int
    available: int  # bytes from the first sample to the end of the file

    @property
    def missing(self) -> int:
        """Bytes that are promised and not there."""
        return self.declared - self.available

    @property
    def is_placeholder(self) -> bool:
        """Whether the size means "to the end"."""
        return self.declared == 0 or (self.declared >= PLACEHOLDER and self.missing > 0)

    @property
    def is_small_lie(self) -> bool:
        """Whether a header's length or less is missing."""
        return 0 < self.missing <= SMALL_LIE


def wav_sizes(file: BinaryIO) -> WavSizes | None:
    """The sizes of the chunk of samples, None if there is none or `file` is no WAV file.

    A chunk of size 0 that a list of further chunks follows is truly empty: None. Leaves the file at
    its beginning.
    """
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    place, found = 12, None
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        for _ in range(_MOST_CHUNKS):
            file.seek(place)
            chunk = file.read(8)
            if len(chunk) < 8:
                break
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                found = WavSizes(place + 4, size, length - place - 8)
                if size == 0 and _chunks_fill(file, place + 8, length):
                    found = None
                break
            place += 8 + size + size % 2
    file.seek(0)
    return found


def _chunks_fill(file: BinaryIO, place: int, length: int) -> bool:
    """Whether what lies from `place` on is a list of chunks that ends where the file does."""
    for _ in range(_MOST_CHUNKS):
        if place >= length:
            return True
        file.seek(place)
        chunk = file.read(8)
        if len(chunk) < 8 or not chunk[:4].decode("latin-1").isprintable():
            return False
        place += 8 + (size := struct.unpack("<I", chunk[4:])[0]) + size % 2
        if place > length + 1:
            return False
    return False


class WithSize(io.RawIOBase):
    """`file` as if its header said another size."""

    def __init__(self, file: BinaryIO, sizes: WavSizes) -> None:
        """The size becomes what is available."""
        self._file, self._place = file, sizes.place
        self._size = struct.pack("<I", min(sizes.available, 0xFFFF_FFFF))

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of the file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of the file."""
        return self._file.tell()

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As of the file, but for the four bytes of the size."""
        start = self._file.tell()
        content = bytearray(self._file.read(len(buffer)))
        first, last = max(start, self._place), min(start + len(content), self._place + 4)
        if first < last:
            content[first - start : last - start] = self._size[
                first - self._place : last - self._place
            ]
        buffer[: len(content)] = content
        return len(content)
