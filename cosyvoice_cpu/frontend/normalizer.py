"""Optional text normalization: numbers, dates and units in words, where a grammar has them.

Marks and line breaks stay outside; the text goes through the grammars sentence by sentence, each in
its paragraph's language unless it is clearly in another.
"""

from __future__ import annotations

import re

from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.frontend.grammars import GRAMMARS, normalizer_installed, spoken
from cosyvoice_cpu.frontend.language import language_of, language_of_sentence
from cosyvoice_cpu.frontend.sentence_ends import find_bounded_sentences
from cosyvoice_cpu.frontend.writing_systems import MARK

__all__ = ["INSTALL", "LANGUAGES", "normalize", "normalizer_installed", "spell_out"]

LANGUAGES = tuple(GRAMMARS)
INSTALL = "pip install 'cosyvoice-cpu[text]'"

_OUTSIDE = re.compile(rf"({MARK.pattern}|[\n\r\v\f\x85\u2028\u2029]+)")
_BLANK_LINES = re.compile(r"(\n[^\S\n]*\n\s*)")
_LETTER = re.compile(r"[^\W\d_]")


def normalize(text: str, language: str | None = None, *, required: bool = False) -> str:
    """`text` with numbers, dates, units and symbols written as they are read.

    `language` is one of LANGUAGES; None decides by evidence, paragraph by paragraph. Other
    languages pass unchanged, and so does all text without wetext, unless `required`. Marks such as
    `<|en|>` and `[breath]`, line breaks and the blanks around a sentence are kept as they are.
    Raises: MissingExtraError if wetext is `required` and not installed.
    Source: CosyVoice cosyvoice/cli/frontend.py, `text_normalize`, which uses the same grammars.
    """
    if language is not None and language not in LANGUAGES:
        return text
    if not normalizer_installed():
        if required:
            raise MissingExtraError(
                "text normalization needs wetext, which is not installed", INSTALL
            )
        return text
    whole = language or language_of(text)
    if whole is None and not _LETTER.search(text):
        whole = "en"  # nothing but numbers
    parts = _BLANK_LINES.split(text)
    parts[::2] = [_paragraph(part, language, whole) for part in parts[::2]]
    return "".join(parts)


def spell_out(sentence: str, language: str | None) -> str:
    """`sentence` with numbers and units in words, unchanged where no grammar serves `language`."""
    if language not in GRAMMARS or not normalizer_installed():
        return sentence
    parts = _OUTSIDE.split(sentence)  # what is to be normalized at even places
    parts[::2] = [spoken(part, language) for part in parts[::2]]
    return "".join(parts)


def _paragraph(text: str, language: str | None, whole: str | None) -> str:
    own = language or language_of(text) or whole
    return "".join(
        spell_out(sentence, language or language_of_sentence(sentence, own))
        for sentence in find_bounded_sentences(text)
    )
