"""Natural sentences: the example sentences of WordNet's glosses (WordNet licence, 3.1).

Templates put words into places where nobody would; examples such as `the goalie made a brilliant
save` show which words go together, and most of them are ordinary ones.
"""

from __future__ import annotations

import re
from pathlib import Path

from cosyvoice_cpu.demo.training.vocabulary import UNWANTED

_FILES = ("data.noun", "data.verb", "data.adj", "data.adv")
_EXAMPLE = re.compile(r'"([^"]+)"')
_SPEAKABLE = re.compile(r"[A-Za-z][A-Za-z ,;:'-]*[a-z][.?!]?")
SHORTEST, LONGEST = 3, 22  # words


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
    return tuple(sorted(_finished(text) for text in found if _usable(text)))


def _usable(text: str) -> bool:
    words = text.split()
    return (
        SHORTEST <= len(words) <= LONGEST
        and _SPEAKABLE.fullmatch(text) is not None
        and UNWANTED.search(text.lower()) is None
        and not any(len(word) > 1 and word.strip(",;:").isupper() for word in words)
    )


def _finished(text: str) -> str:
    return text[0].upper() + text[1:] + ("" if text[-1] in ".?!" else ".")
