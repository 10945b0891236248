"""The fixed sentences that voices are judged by.

66 in English of 5 to 25 words and 10 in Chinese, written for this project. Kinds take turns (plain,
question, numbers as words, digits, punctuation, long), so that the first N are balanced for any N;
the Chinese ones come last.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

from cosyvoice_cpu.errors import UsageError


@dataclass(frozen=True)
class Sentence:
    """One item of a comparison."""

    name: str  # "en01"
    language: str  # "en" or "zh"
    kind: str
    text: str


@cache
def all_sentences() -> tuple[Sentence, ...]:
    """Every sentence of the list, in its order."""
    table = resources.files(__package__) / "data" / "sentences.tsv"
    rows = table.read_text(encoding="utf-8").splitlines()[1:]
    return tuple(Sentence(*row.split("\t")) for row in rows)


def first_sentences(count: int) -> tuple[Sentence, ...]:
    """The first `count` of the list. Raises: UsageError if it has not that many."""
    sentences = all_sentences()
    if not 1 <= count <= len(sentences):
        raise UsageError(
            f"{count} sentences can't be taken from a list of {len(sentences)}",
            f"give 1 to {len(sentences)}; the first 66 are English",
        )
    return sentences[:count]
