"""wetext, kept from what its grammars can't take.

A sentence is first prepared (`english.py`, `chinese.py`, `japanese.py`: what the grammars are known
to get wrong is written so that they get it right). Words of other languages and names with digits
stay outside. wetext fails with a bare AssertionError on characters that a grammar doesn't have;
such a part is then taken word by word, and a word that is refused stays as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import import_module
from typing import Any, Protocol

from cosyvoice_cpu.frontend.writing_systems import has_speech

_SURROUNDING_BLANKS = re.compile(r"(\s*)(.*?)(\s*)\Z", re.DOTALL)
_REFUSALS = (AssertionError, RuntimeError, ValueError, IndexError)
_WORD = re.compile(r"(\s+|[—–“”‘’«»„…]+)")
_DIGIT_OR_SYMBOL = re.compile(r"[\d$€£¥%&@#+=°]")


class _Wetext(Protocol):
    def normalize(self, text: str) -> str: ...


# Language to the module with its `prepare`, text to text, and `KEPT`, parts that the grammar is not
# shown, as one group; imported when the language is first spoken: their patterns take 15 ms.
GRAMMARS = {
    "zh": "cosyvoice_cpu.frontend.grammars.chinese",
    "en": "cosyvoice_cpu.frontend.grammars.english",
    "ja": "cosyvoice_cpu.frontend.grammars.japanese",
}


@lru_cache(maxsize=1)
def normalizer_installed() -> bool:
    """True if wetext and its grammars can be imported."""
    try:
        import wetext  # noqa: F401
    except ImportError:
        return False
    return True


def spoken(text: str, language: str) -> str:
    """`text` of a language in GRAMMARS with its numbers in words; needs wetext."""
    if not has_speech(text) or "\\" in text:
        return text
    grammar: Any = import_module(GRAMMARS[language])
    parts = grammar.KEPT.split(grammar.prepare(text))
    parts[::2] = [_part(part, language) for part in parts[::2]]
    return "".join(parts)


def _part(part: str, language: str) -> str:
    match = _SURROUNDING_BLANKS.match(part)
    if match is None or not has_speech(match[2]):
        return part
    words = _by_grammar(match[2], language)
    if words is None:
        pieces = _WORD.split(match[2])
        pieces[::2] = [
            (_by_grammar(piece, language) if _DIGIT_OR_SYMBOL.search(piece) else None) or piece
            for piece in pieces[::2]
        ]
        words = "".join(pieces)
    return match[1] + words + match[3]


def _by_grammar(text: str, language: str) -> str | None:
    """What wetext makes of `text`, None if it refuses."""
    if not has_speech(text):
        return text
    try:
        words = _wetext(language).normalize(text)
    except _REFUSALS:
        return None
    # The text had no backslash, so each is one that wetext put before a quote; blanks it doubles.
    words = words.replace("\\", "")
    return words if "  " in text else words.replace("  ", " ")


@lru_cache(maxsize=len(GRAMMARS))
def _wetext(language: str) -> _Wetext:
    from wetext import Normalizer

    grammar: _Wetext = Normalizer(lang=language, operator="tn")
    return grammar
