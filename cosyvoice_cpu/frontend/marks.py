"""Marks in a text: those of the model's tokenizer, and what looks like one and is none.

A known mark (`[breath]`, `<strong>`, `<|endofprompt|>`) is one id and stays. Anything else of that
shape would be spoken letter by letter without a word, so it is named, with the known mark that is
nearest to it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from difflib import SequenceMatcher
from functools import lru_cache

__all__ = ["CONTROL", "MarkTable", "mend_mark"]

CONTROL = re.compile(r"<\|[^|<>\n]{0,60}\|>")

# What is inside brackets of the usual kinds, with or without blanks: a word as marks are.
_INNER = r"\s*/?\s*[^\W\d][\w-]{0,23}(?:[ _][\w-]{1,12})?\s*/?\s*"
_MARK_LIKE = re.compile(
    rf"<\|[^|<>\n]{{0,60}}\|>|\[{_INNER}\]|［{_INNER}］|<{_INNER}>|＜{_INNER}＞"
)
# Brackets of ordinary prose: only what is nearly the name of a mark is taken for one.
_PROSE_BRACKET = re.compile(rf"\({_INNER}\)|（{_INNER}）|【{_INNER}】|\{{{_INNER}\}}|\*{_INNER}\*")
_LETTERS = re.compile(r"[^\W_]+")
_PHONE = re.compile(r"[^\W\d_]{1,3}[0-2]?|[aeiouüngàáèéìíòóùúāēěīōūǎǐǒǔǖǘǚǜ]{4}")
_ALIKE = 0.55  # difflib's ratio
_MEANINGS = {
    "laugh": "laughter", "laughing": "laughter", "laughs": "laughter", "chuckle": "laughter",
    "giggle": "laughter", "haha": "laughter", "笑": "laughter", "笑声": "laughter",
    "大笑": "laughter", "breathe": "breath", "inhale": "breath", "exhale": "breath",
    "呼吸": "breath", "gasp": "quick_breath", "咳嗽": "cough", "叹气": "sigh", "噪音": "noise",
    "噪声": "noise", "口音": "accent", "bold": "strong", "b": "strong", "emphasis": "strong",
}  # fmt: skip


class MarkTable:
    """The marks of one model's text tokenizer."""

    def __init__(self, known: Collection[str] = ()) -> None:
        self.known = frozenset(known)
        self._inner = {mark: _name(mark) for mark in known}
        # Phones and finals, [AA0] and [iǎng], are like the fragments of any word.
        self._sounds = [mark for mark in known if not _PHONE.fullmatch(self._inner[mark])]

    def unknown(self, text: str) -> Iterator[str]:
        """What is written like a mark in `text` and is none of this model's, in order."""
        for found in _MARK_LIKE.finditer(text):
            if found[0] not in self.known:
                yield found[0]
        for found in _PROSE_BRACKET.finditer(text):
            name = _name(found[0])
            meant = _MEANINGS.get(name, name)
            if meant != "strong" and any(meant == self._inner[mark] for mark in self._sounds):
                yield found[0]

    @lru_cache(maxsize=256)  # noqa: B019  (a table lives as long as its model)
    def nearest(self, mark: str) -> str | None:
        """The known mark that `mark` may stand for; None if none is like it."""
        name = _name(mark)
        name = _MEANINGS.get(name, name)
        closing = mark.lstrip("<[").startswith("/")
        control = CONTROL.fullmatch(mark) is not None
        candidates = [
            known
            for known in (self.known if self._is_phone(mark) else self._sounds)
            if not (control and self._is_phone(known))
        ]
        best, ratio = None, _ALIKE
        for known in sorted(candidates, key=lambda known: (known[0] != "[", known)):
            same = SequenceMatcher(None, name, self._inner[known]).ratio()
            same += 0.01 * (known[0] == mark[0]) + 0.01 * (known.startswith("</") == closing)
            if same > ratio:
                best, ratio = known, same
        return best

    def warning(self, mark: str) -> str:
        """One line that names `mark`, what becomes of it, and what may have been meant."""
        fate = "is left out" if CONTROL.fullmatch(mark) else "is spoken as it is written"
        nearest = self.nearest(mark)
        if nearest is not None:
            return f"{mark} is no mark of this model and {fate}; the nearest is {nearest}"
        some = ", ".join(sorted(self._sounds, key=len)[:4])
        known = f"; its marks are {some} and others" if some else ""
        return f"{mark} is no mark of this model and {fate}{known}"

    def _is_phone(self, mark: str) -> bool:
        return mark.startswith("[") and len(mark) <= 5


def mend_mark(text: str, mark: str) -> str:
    """`text` with what is nearly `mark` written as it: `<endofprompt>`, `[EndOfPrompt]`.

    Brackets, bars, case, blanks, hyphens and underscores may differ; the letters are all there.
    """
    letters = r"[\s_-]*".join(_name(mark))
    near = re.compile(rf"[<＜\[［]\s*[|｜]?\s*{letters}\s*[|｜]?\s*[>＞\]］]", re.IGNORECASE)
    return near.sub(lambda _: mark, text)


def _name(mark: str) -> str:
    return "".join(_LETTERS.findall(mark)).lower()
