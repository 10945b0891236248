"""The entries of a zip file that stores and does not compress, as PyTorch writes its files.

Read more strictly than `zipfile` does: two readers must never see two contents. The end record is
the file's last bytes; every entry is stored, lies inside the file, overlaps no other, and is
announced alike in its own header and in the table of contents. So nothing that is read is larger
than the file, and reading the table takes a time and a memory that its own size bounds.
Source: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.4.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from itertools import pairwise

_MOST_BYTES = 32 << 20  # of the table of contents; an official file's has 0.1 MB
_MOST_ENTRIES = 200_000
_END, _END_64, _LOCATOR_64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_TABLE_ROW, _ENTRY = b"PK\x01\x02", b"PK\x03\x04"
_IN_EXTRA, _IN_EXTRA_SHORT = 0xFFFFFFFF, 0xFFFF  # the number stands in another place, in 64 bits
_ENCRYPTED_OR_PATCHED = 0x2061  # bits of the flags: what such an entry holds is not its content


class DamagedZipError(ValueError):
    """The bytes are not such a file; the text says what is wrong."""


@dataclass(frozen=True)
class Entry:
    """Where one entry's content lies in the file."""

    start: int
    size: int  # bytes
    crc32: int


def stored_entries(content: mmap.mmap) -> dict[str, Entry]:
    """Each entry by name. Raises: DamagedZipError."""
    try:
        place, size, count = _table_place(content)
        if size > _MOST_BYTES or count > _MOST_ENTRIES:
            raise DamagedZipError(f"its table of contents has {count} entries in {size} bytes")
        if place + size > len(content):
            raise DamagedZipError("its table of contents lies outside the file")
        return _rows(content, content[place : place + size], count)
    except struct.error:
        raise DamagedZipError("its table of contents, at the end, can't be read") from None


def _table_place(content: mmap.mmap) -> tuple[int, int, int]:
    """Start, bytes and rows of the table of contents."""
    end = len(content) - 22
    if end < 0 or content[end : end + 4] != _END or content[end + 20 : end + 22] != b"\0\0":
        raise DamagedZipError("its table of contents, at the end, can't be read")
    disk, table_disk, here, count, size, place = struct.unpack_from("<4H2L", content, end + 4)
    if (disk, table_disk) != (0, 0) or here != count:
        raise DamagedZipError("it is one part of several")
    locator = end - 20
    if locator >= 0 and content[locator : locator + 4] == _LOCATOR_64:
        (record,) = struct.unpack_from("<Q", content, locator + 8)
        if record + 56 > locator or content[record : record + 4] != _END_64:
            raise DamagedZipError("its table of contents, at the end, can't be read")
        wide = struct.unpack_from("<3Q", content, record + 32)
        narrow = (count, size, place)
        limits = (_IN_EXTRA_SHORT, _IN_EXTRA, _IN_EXTRA)
        for short, long, limit in zip(narrow, wide, limits, strict=True):
            if short not in (long, limit):
                raise DamagedZipError("its two tables of contents differ")
        count, size, place = wide
    return place, size, count


def _rows(content: mmap.mmap, table: bytes, count: int) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    taken: list[tuple[int, int]] = []  # from each entry's own header to the end of its content
    position = 0
    for _ in range(count):
        if table[position : position + 4] != _TABLE_ROW:
            raise DamagedZipError("a row of its table of contents can't be read")
        flags, method = struct.unpack_from("<2H", table, position + 8)
        crc32, packed, size, name_length, extra_length, comment_length, disk = struct.unpack_from(
            "<3L4H", table, position + 16
        )
        (header,) = struct.unpack_from("<L", table, position + 42)
        raw = table[position + 46 : position + 46 + name_length]
        extra = table[position + 46 + name_length :][:extra_length]
        position += 46 + name_length + extra_length + comment_length
        size, packed, header = _wide_numbers(extra, size, packed, header)
        name = raw.decode("utf-8", "backslashreplace")
        if method != 0 or packed != size:
            raise DamagedZipError(f"its entry {name:.80} is compressed; PyTorch stores")
        if flags & _ENCRYPTED_OR_PATCHED or disk != 0:
            raise DamagedZipError(f"its entry {name:.80} is encrypted or in another file")
        if name in entries:
            raise DamagedZipError(f"its entry {name:.80} is there twice")
        start = _content_start(content, header, raw)
        if start + size > len(content):
            raise DamagedZipError(f"its entry {name:.80} goes beyond the file")
        entries[name] = Entry(start, size, crc32)
        taken.append((header, start + size))
    if position != len(table):
        raise DamagedZipError("its table of contents has more than its rows")
    taken.sort()
    if any(end > following for (_, end), (following, _) in pairwise(taken)):
        raise DamagedZipError("two of its entries overlap")
    return entries


def _wide_numbers(extra: bytes, *numbers: int) -> list[int]:
    """`numbers` with those that did not fit 32 bits as the extra field 1 has them, in order."""
    position, wide = 0, b""
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, position)
        if kind == 1:
            wide = extra[position + 4 : position + 4 + length]
            break
        position += 4 + length
    found: list[int] = []
    taken = 0
    for number in numbers:
        if number == _IN_EXTRA:
            found += struct.unpack_from("<Q", wide, taken)
            taken += 8
        else:
            found.append(number)
    return found


def _content_start(content: mmap.mmap, header: int, name: bytes) -> int:
    """Where the content behind an entry's own header begins, whose name must be `name`."""
    if header + 30 > len(content) or content[header : header + 4] != _ENTRY:
        raise DamagedZipError("an entry is not where the table of contents has it")
    name_length, extra_length = struct.unpack_from("<2H", content, header + 26)
    (method,) = struct.unpack_from("<H", content, header + 8)
    if content[header + 30 : header + 30 + name_length] != name or method != 0:
        raise DamagedZipError("an entry is not what the table of contents says")
    return header + 30 + int(name_length) + int(extra_length)
