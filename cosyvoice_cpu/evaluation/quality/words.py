"""Word error rate: what a recogniser heard against what should have been said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from cosyvoice_cpu.evaluation.quality.numbers import spell_numbers
from cosyvoice_cpu.frontend.writing_systems import HAN_OR_KANA

_TITLES = {"mr": "mister", "mrs": "missus", "ms": "miss", "dr": "doctor"}
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "`": "'"})
_WORD = re.compile(rf"{HAN_OR_KANA.pattern}|[^\W_]+(?:'[^\W_]+)*")
_LARGE = frozenset({"hundred", "thousand", "million", "billion"})


@dataclass(frozen=True)
class WordErrors:
    """The fewest edits that make what was said of what was heard."""

    substitutions: int
    insertions: int
    deletions: int
    words: int  # that should have been said

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.insertions + self.deletions

    @property
    def rate(self) -> float:
        """Errors per word; above 1 where more was inserted than there are words.

        Without a word to say, each inserted word counts as one error per word.
        """
        return self.errors / max(self.words, 1)


def normalized_words(text: str) -> list[str]:
    """The words of `text` as they are compared.

    Lower case; numbers spelled; "&" is "and"; titles written out; no punctuation; hyphens part
    words; "a hundred" is "one hundred", and the "and" within a number ("one hundred and five")
    goes. A Han or kana character is a word of its own, so that the rate of a Chinese text is its
    character error rate.
    """
    text = text.translate(_APOSTROPHES).lower()
    text = spell_numbers(text.replace("&", " and "))
    words = [_TITLES.get(word, word) for word in _WORD.findall(text)]
    for index, following in enumerate(words[1:]):
        if words[index] == "a" and following in _LARGE:
            words[index] = "one"
    return [word for index, word in enumerate(words) if not _within_number(words, index)]


def _within_number(words: Sequence[str], index: int) -> bool:
    return (
        words[index] == "and"
        and 0 < index < len(words) - 1
        and words[index - 1] in _LARGE
        and words[index + 1] in _NUMBER_WORDS
    )


_NUMBER_WORDS = frozenset(
    word for number in range(1, 100) for word in spell_numbers(str(number)).split()
)


def word_errors(said: Sequence[str], heard: Sequence[str]) -> WordErrors:
    """Align two lists of words by Levenshtein distance.

    Of alignments with the fewest edits, the one with the fewest substitutions before insertions
    counts, so the three numbers are determined. Source: V. Levenshtein, 1966.
    """
    # Each cell is (edits, substitutions, insertions) of the best alignment of two prefixes.
    row = [(count, 0, count) for count in range(len(heard) + 1)]
    for i, word in enumerate(said, start=1):
        last, row = row, [(i, 0, 0)]
        for j, other in enumerate(heard, start=1):
            edits, swapped, added = last[j - 1]
            wrong = int(word != other)
            row.append(
                min(
                    (edits + wrong, swapped + wrong, added),
                    (last[j][0] + 1, last[j][1], last[j][2]),
                    (row[-1][0] + 1, row[-1][1], row[-1][2] + 1),
                )
            )
    edits, substitutions, insertions = row[-1]
    return WordErrors(substitutions, insertions, edits - substitutions - insertions, len(said))


def text_errors(said: str, heard: str) -> WordErrors:
    """`word_errors` of two texts."""
    return word_errors(normalized_words(said), normalized_words(heard))
