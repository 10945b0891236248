"""Lines to paragraphs: blank lines and list lines are stops, prose wrapped at a column is joined.

Whether a line break is one of a list or of wrapped prose is seen from the widths: in wrapped prose
the next line's first word would not have fitted behind the line. Where the break is a stop and the
line ends without one, a stop is added, so that the model hears it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

from cosyvoice_cpu.frontend import writing_systems

__all__ = ["blocks", "joined_lines", "with_stop"]

_ROOM_FOR_PROSE = 40  # columns; narrower text may be a list of names as well
_MOST_LINES = 2000  # of a stretch; then it is cut, so that no text waits for all of it
_FULL = 0.85  # of the widest line; the last word may be long

_LINE_ENDS = re.compile(r"\r\n|[\r\v\x85\u2028]")
_PAGE_ENDS = re.compile(r"[\f\u2029]")
_FIRST_WORD = re.compile(r"\S+")
_GOES_ON = re.compile(r"(?:[,，、;—–(（]|[^\W\d_]-)\Z")
_CLOSING = "".join(writing_systems.CLOSERS | writing_systems.DOUBLE_QUOTES) + "'"
_PAUSE = re.compile(r"\[pause \d+ms\]\Z")


def blocks(text: str) -> Iterator[list[str]]:
    """The lines of each stretch between blank lines, one stretch after the other."""
    text = _PAGE_ENDS.sub("\n\n", _LINE_ENDS.sub("\n", text))
    lines: list[str] = []
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        line = text[start:end]
        if line.strip():
            lines.append(line)
        if lines and (not line.strip() or len(lines) == _MOST_LINES):
            yield lines
            lines = []
        start = end + 1
    if lines:
        yield lines


def joined_lines(lines: Sequence[str]) -> list[str]:
    """Lines of one stretch as they are to be spoken: parts of one sentence together in one.

    All but the last end with a stop or a pause mark.
    """
    lines = [line for line in (" ".join(line.split()) for line in lines) if line]
    if len(lines) < 2:
        return lines
    widths = [_width(line) for line in lines]
    widest = max(widths)
    prose = _ends_with_stop(lines[-1])  # a list has no stop at its end
    wide = widest >= _ROOM_FOR_PROSE and (prose or any(line[0].islower() for line in lines[1:]))
    joined: list[str] = []
    parts = [lines[0]]  # of the line that is put together
    for before, line, width in zip(lines, lines[1:], widths, strict=False):
        full = width + 1 + _first_width(line) > _FULL * widest
        goes_on = (full and wide) or (
            not _ends_with_stop(before)
            and (
                _GOES_ON.search(before) is not None
                or (
                    prose
                    and (
                        line[0].islower() or (full and line[0].isalpha() and not line[0].isupper())
                    )
                )
            )
        )
        if goes_on:
            parts += (_between(before, line), line)
        else:
            joined.append(with_stop("".join(parts)))
            parts = [line]
    return [*joined, "".join(parts)]


def with_stop(line: str) -> str:
    """`line`, ended by the stop of its script if it ends without stop, pause or comma."""
    body = line.rstrip()
    if not writing_systems.has_speech(body) or _ends_with_stop(body) or _PAUSE.search(body):
        return line
    if body[-1] in ",，、;；:：—–-":
        return line
    last = body.rstrip(_CLOSING)[-1:]
    return body + ("。" if writing_systems.HAN_OR_KANA.match(last or body[-1]) else ".")


def _ends_with_stop(line: str) -> bool:
    return line.rstrip(_CLOSING + " ")[-1:] in writing_systems.STOPS


def _between(before: str, line: str) -> str:
    """A blank, but nothing between two Han characters or kana or wide marks."""
    if before[-1] == "-" and before[-2:-1].isalpha() and line[0].islower():
        return ""  # a compound that was broken behind its hyphen
    return "" if _is_wide(before[-1]) and _is_wide(line[0]) else " "


def _is_wide(character: str) -> bool:
    return (
        unicodedata.east_asian_width(character) in "WF"
        and not "\uac00" <= character <= "\ud7a3"  # Hangul has blanks between words
    )


def _width(text: str) -> int:
    """Columns: two for each wide character."""
    return len(text) + sum(unicodedata.east_asian_width(character) in "WF" for character in text)


def _first_width(line: str) -> int:
    if _is_wide(line[0]):
        return 2
    found = _FIRST_WORD.match(line)
    return len(found[0]) if found else 0
