"""The text to speak: an argument, a file or stdin, always UTF-8."""

from __future__ import annotations

import codecs
import sys
from pathlib import Path
from typing import BinaryIO

from cosyvoice_cpu.errors import TextError, UsageError
from cosyvoice_cpu.frontend.characters import check_characters

LARGEST_TEXT = 16 << 20  # bytes; a thick book has two million

# What a file begins with that says it is no UTF-8. UTF-32 comes first: its mark in little endian
# begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)


def text_to_speak(text: str | None, file: Path | None) -> str:
    """The text of the one source that was given; `-` is stdin.

    Raises: UsageError unless there is exactly one source, TextError naming the source if it can't
    be read, is too long, or holds what is no text.
    """
    if (text is None) == (file is None):
        fact = (
            "there is no text to speak" if text is None else "TEXT and --text-file are both given"
        )
        raise UsageError(fact, "give TEXT, or --text-file FILE, or - to read stdin")
    if text == "-" or file == Path("-"):
        return check_characters(_decoded(_read(sys.stdin.buffer, "stdin"), "stdin"), "stdin")
    if file is None:
        return check_characters(text or "", "the text")
    try:
        with file.open("rb") as stream:
            content = _read(stream, str(file))
    except OSError as error:
        raise TextError(f"{file} can't be read ({error.strerror})", "check the name") from error
    return check_characters(_decoded(content, str(file)), str(file))


def _read(stream: BinaryIO, source: str) -> bytes:
    content = stream.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT:
        raise TextError(f"{source} exceeds {LARGEST_TEXT >> 20} MB", "speak it in parts")
    return content


def _decoded(content: bytes, source: str) -> str:
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            raise TextError(f"{source} is {encoding}, not UTF-8", "save the text as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{source} is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}",
            "save the text as UTF-8",
        ) from error
