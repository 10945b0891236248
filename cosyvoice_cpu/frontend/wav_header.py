"""Sizes in WAV, RF64 and CAF headers that are placeholders or slightly wrong.

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
_IN_64_BITS = 0xFFFF_FFFF
_MOST_CHUNKS = 1000


@dataclass(frozen=True)
class WavSizes:
    """What a header says of its samples, and what there is."""

    place: int  # of the size
    form: str  # of the size, for `struct`
    declared: int
    available: int  # bytes from the first sample to the end of the file

    @property
    def missing(self) -> int:
        """Bytes that are promised and not there."""
        return self.declared - self.available

    @property
    def is_placeholder(self) -> bool:
        """Whether the size means "to the end"."""
        return self.declared <= 0 or (self.declared >= PLACEHOLDER and self.missing > 0)

    @property
    def is_small_lie(self) -> bool:
        """Whether a header's length or less is missing."""
        return 0 < self.missing <= SMALL_LIE


def wav_sizes(file: BinaryIO) -> WavSizes | None:
    """The sizes of the chunk of samples, None if there is none or `file` is no such file.

    A chunk of size 0 that a list of further chunks follows is truly empty: None. Leaves the file at
    its beginning.
    """
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    head = file.read(12)
    found = None
    if head[:4] in (b"RIFF", b"RF64") and head[8:] == b"WAVE":
        found = _samples(file, length, 12, "<I")
    elif head[:6] == b"caff\0\1":
        found = _samples(file, length, 8, ">q")
    file.seek(0)
    return found


def _samples(file: BinaryIO, length: int, place: int, form: str) -> WavSizes | None:
    """The chunk of samples in the list that begins at `place`, with sizes of `form`."""
    width = struct.calcsize(form)
    large: tuple[int, int] | None = None  # RF64 has the size apart, in 64 bits
    for _ in range(_MOST_CHUNKS):
        file.seek(place)
        name, written = file.read(4), file.read(width)
        if len(written) < width:
            return None
        size = int(struct.unpack(form, written)[0])
        start = place + 4 + width
        if name == b"ds64" and len(content := file.read(16)) == 16:
            large = start + 8, struct.unpack("<Q", content[8:])[0]
        if name == b"data":
            if large and size == _IN_64_BITS:
                return WavSizes(large[0], "<Q", large[1], length - start)
            if size == 0 and _chunks_fill(file, start, length):
                return None
            return WavSizes(place + 4, form, size, length - start)
        if size < 0:
            return None
        place = start + size + (size % 2 if form == "<I" else 0)
    return None


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
        largest = 256 ** struct.calcsize(sizes.form) // 2 - 1
        self._size = struct.pack(sizes.form, min(sizes.available, largest))

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
        """As of the file, but for the bytes of the size."""
        start, end = self._file.tell(), self._place + len(self._size)
        content = bytearray(self._file.read(len(buffer)))
        first, last = max(start, self._place), min(start + len(content), end)
        if first < last:
            content[first - start : last - start] = self._size[
                first - self._place : last - self._place
            ]
        buffer[: len(content)] = content
        return len(content)
