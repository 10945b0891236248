"""Cutting a sentence in two where it hurts least, for models with room for half of it only."""

from __future__ import annotations

import re
import unicodedata

_MARK = re.compile(r"\[[^\[\]\s]{1,24}\]|</?[^<>\s]{1,24}>")  # [laughter], [j], <strong>, <|en|>
_NUMBER = re.compile(r"\d+(?:[.,:/-]\d+)*")

# Cuts are made behind a match, the first kind that has one; a distance is a share of the length.
_KINDS = (  # a cut far from the middle hardly shortens the longer part
    (re.compile(r"[,，、;；:：。.!?！？…—]+[\"'”’」』）)]*\s*"), 0.25),  # the end of a clause
    (re.compile(r"\s+"), 0.25),
    (re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]"), 0.25),  # scripts without blanks
    (re.compile(r"\s+"), 0.5),
    (re.compile(r"."), 0.5),
)


def halve(text: str) -> tuple[str, str] | None:
    """`text` in two parts that joined are `text`; None if it is too short to be cut.

    Both parts have something to say. The cut is near the middle and never inside a mark such as
    `[breath]`, a number, or a character and its combining accent.
    """
    for pattern, reach in _KINDS:
        cuts = [
            match.end()
            for match in pattern.finditer(text)
            if _off_centre(match.end(), text) <= reach * len(text) and _may_cut(text, match.end())
        ]
        if cuts:
            cut = min(cuts, key=lambda position: _off_centre(position, text))
            return text[:cut], text[cut:]
    return None


def is_speakable(text: str) -> bool:
    """Whether there is anything to say: a letter or a digit of any script."""
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _off_centre(position: int, text: str) -> float:
    return abs(position - len(text) / 2)


def _may_cut(text: str, position: int) -> bool:
    left, right = text[:position], text[position:]
    if not is_speakable(left) or not is_speakable(right):
        return False
    if unicodedata.category(right[0])[0] == "M" or "\u200d" in (left[-1], right[0]):
        return False
    whole = (match.span() for unit in (_MARK, _NUMBER) for match in unit.finditer(text))
    return not any(start < position < end for start, end in whole)
