"""Optional text normalization: numbers, dates and units in words, by wetext's grammars.

wetext fails with a bare AssertionError on what its grammars don't cover (line breaks, ". . .", a
foreign script) and returns quotes with a backslash. So a text goes through it sentence by sentence,
marks and line breaks stay outside, and a sentence that it refuses passes as it is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Protocol

from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.frontend.sentence_ends import find_sentences
from cosyvoice_cpu.frontend.writing_systems import HAN_OR_KANA, MARK, has_speech

LANGUAGES = ("zh", "en")

_OUTSIDE = re.compile(rf"({MARK.pattern}|[\n\r\v\f\x85\u2028\u2029]+)")
# Chinese grammars read Qwen2 as "Qwen two" in Chinese and GPT-4 as "GPT minus four".
_LATIN_NAME = re.compile(r"([A-Za-z][!-~]*[A-Za-z0-9/])")
_FOREIGN_LETTER = re.compile(r"[^\W\d_a-zA-Z]")
_SURROUNDING_BLANKS = re.compile(r"(\s*)(.*?)(\s*)\Z", re.DOTALL)


class _Grammar(Protocol):
    def normalize(self, text: str) -> str: ...


def normalize(text: str, language: str | None = None, *, required: bool = False) -> str:
    """`text` with numbers, dates, units and symbols written as they are read.

    `language` is "zh" or "en"; None decides for each sentence: Chinese where there is a Han
    character, English where all letters are ASCII. Other languages pass unchanged, and so does all
    text without wetext, unless `required`. Marks such as `<|en|>` and `[breath]`, line breaks and
    the blanks around a sentence are kept as they are.
    Raises: MissingExtraError if wetext is `required` and not installed.
    Source: CosyVoice cosyvoice/cli/frontend.py, `text_normalize`, which uses the same grammars.
    """
    if language is not None and language not in LANGUAGES:
        return text
    if not normalizer_installed():
        if required:
            raise MissingExtraError(
                "text normalization needs wetext, which is not installed",
                "pip install 'cosyvoice-cpu[text]'",
            )
        return text
    parts = _OUTSIDE.split(text)  # what is to be normalized at even places
    parts[::2] = [
        "".join(_sentence(sentence, language) for sentence in find_sentences(part))
        for part in parts[::2]
    ]
    return "".join(parts)


@lru_cache(maxsize=1)
def normalizer_installed() -> bool:
    """True if wetext and its grammars can be imported."""
    try:
        import wetext  # noqa: F401
    except ImportError:
        return False
    return True


def _sentence(sentence: str, language: str | None) -> str:
    language = language or _language_of(sentence)
    if language is None or not has_speech(sentence) or "\\" in sentence:
        return sentence
    if language == "en":
        return _spoken(sentence, language)
    parts = _LATIN_NAME.split(sentence)
    parts[::2] = [_spoken(part, language) for part in parts[::2]]
    return "".join(parts)


def _language_of(sentence: str) -> str | None:
    if HAN_OR_KANA.search(sentence):
        return "zh"
    return None if _FOREIGN_LETTER.search(sentence) else "en"


def _spoken(part: str, language: str) -> str:
    match = _SURROUNDING_BLANKS.match(part)
    if match is None or not has_speech(match[2]):
        return part
    try:
        words = _grammar(language).normalize(match[2])
    except (AssertionError, RuntimeError, ValueError, IndexError):  # outside its grammar
        return part
    # The text had no backslash, so each is one that wetext put before a quote.
    return match[1] + words.replace("\\", "") + match[3]


@lru_cache(maxsize=len(LANGUAGES))
def _grammar(language: str) -> _Grammar:
    from wetext import Normalizer

    grammar: _Grammar = Normalizer(lang=language)
    return grammar
