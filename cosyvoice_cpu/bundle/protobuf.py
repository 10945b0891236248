"""The protobuf wire format, read strictly and in place.

A message is a row of fields, each a tag (field number and wire type) and a value. Values are not
copied: a field is a range of bytes in the file. What protobuf readers treat differently, or what no
writer produces (groups, numbers over 64 bits, a length past the end), is refused.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import mmap
from collections.abc import Container, Iterator
from typing import Final, NamedTuple

Content = mmap.mmap | bytes

_VARINT: Final = 0
_FIXED64: Final = 1
_BYTES: Final = 2
_FIXED32: Final = 5
_LONGEST_TEXT = 2**16  # bytes; these are names and keys


class MalformedError(ValueError):
    """The bytes are not the message they should be."""


class Field(NamedTuple):
    """One field of a message. The value lies in bytes `low` to `high`; a varint is `low` itself."""

    number: int
    wire_type: int
    low: int
    high: int


def read_fields(content: Content, start: int, end: int, wanted: Container[int]) -> Iterator[Field]:
    """Each field of the message in `content[start:end]` whose number is wanted.

    Raises: MalformedError, also for what is wrong with the other fields' frames.
    """
    position = start
    while position < end:
        tag = content[position]
        if tag < 0x80:  # one byte, as most tags and lengths are: no call, for speed
            position += 1
        else:
            tag, position = _varint(content, position, end)
        number, wire_type = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise MalformedError(f"field number {number} before byte {position}")
        if wire_type == _VARINT:
            value, position = _varint(content, position, end)
            if number in wanted:
                yield Field(number, wire_type, value, position)
            continue
        if wire_type == _BYTES:
            length = content[position] if position < end else 0x80
            if length < 0x80:
                position += 1
            else:
                length, position = _varint(content, position, end)
        elif wire_type == _FIXED64:
            length = 8
        elif wire_type == _FIXED32:
            length = 4
        else:
            raise MalformedError(f"wire type {wire_type} before byte {position}")
        if length > end - position:
            raise MalformedError(f"the field at byte {position} is longer than what holds it")
        if number in wanted:
            yield Field(number, wire_type, position, position + length)
        position += length


def expect_message(field: Field) -> None:
    """Raises: MalformedError unless the field can hold a message."""
    if field.wire_type != _BYTES:
        raise MalformedError(f"field {field.number} is not a message")


def as_text(content: Content, field: Field) -> str:
    """The field as a string. Raises: MalformedError if it is none, or longer than a name can be."""
    if field.wire_type != _BYTES or field.high - field.low > _LONGEST_TEXT:
        raise MalformedError(f"field {field.number} is not a short string")
    try:
        return content[field.low : field.high].decode()
    except UnicodeDecodeError:
        raise MalformedError(f"the string at byte {field.low} is not UTF-8") from None


def as_number(field: Field) -> int:
    """The field as an unsigned number. Raises: MalformedError if it is none."""
    if field.wire_type != _VARINT:
        raise MalformedError(f"field {field.number} is not a number")
    return field.low


def as_numbers(content: Content, field: Field) -> list[int]:
    """The numbers of one field of a repeated number: one alone, or many packed."""
    if field.wire_type != _BYTES:
        return [as_number(field)]
    numbers, position = [], field.low
    while position < field.high:
        number, position = _varint(content, position, field.high)
        numbers.append(number)
    return numbers


def _varint(content: Content, position: int, end: int) -> tuple[int, int]:
    """A number in base 128, lowest digit first, and the position behind it."""
    value = 0
    for shift in range(0, 64, 7):
        if position >= end:
            break
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80 and value < 2**64:
            return value, position
    raise MalformedError(f"the number before byte {position} does not end within 64 bits")
