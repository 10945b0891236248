"""Word error rate: a recogniser's transcript against the text, as published figures count it.

Texts are normalized as Whisper's authors do (package `whisper-normalizer`) and aligned by jiwer;
both come with the extra `eval`, like the recognisers.
Source: Radford et al., arXiv 2212.04356, appendix C; jiwer, github.com/jitsi/jiwer.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import util
from typing import Any

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'"})  # contractions are known by the plain one
_MODULES = {"jiwer": "jiwer", "whisper_normalizer": "whisper-normalizer"}


@dataclass(frozen=True)
class WordErrors:
    """The fewest edits that make the transcript of the text."""

    substitutions: int
    insertions: int
    deletions: int
    words: int  # of the text

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per word; above 1 where more was inserted than there are words.

        In a text without a word, each inserted word counts as one error per word.
        """
        return self.errors / max(self.words, 1)


def normalized(text: str, language: str = "en") -> str:
    """`text` as it is compared, words apart by one space.

    English: lower case without punctuation, contractions and titles written out, numbers in digits,
    American spelling. Other languages: lower case without punctuation, each character a word of its
    own, so that the rate of a Chinese text is its character error rate.
    """
    return " ".join(_normalizer(language)(text.translate(_APOSTROPHES)).split())


def text_errors(text: str, transcript: str, language: str = "en") -> WordErrors:
    """Word errors of a transcript, both normalized."""
    import jiwer

    aligned = jiwer.process_words(normalized(text, language), normalized(transcript, language))
    words = aligned.hits + aligned.substitutions + aligned.deletions
    return WordErrors(aligned.substitutions, aligned.insertions, aligned.deletions, words)


def missing_packages() -> list[str]:
    """The packages, by their names in the index, that counting lacks here."""
    return [name for module, name in _MODULES.items() if util.find_spec(module) is None]


@cache
def _normalizer(language: str) -> Any:
    from whisper_normalizer.basic import BasicTextNormalizer
    from whisper_normalizer.english import EnglishTextNormalizer

    if language == "en":
        return EnglishTextNormalizer()
    return BasicTextNormalizer(split_letters=True)
