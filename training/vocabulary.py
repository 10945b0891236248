"""Word lists out of the files that the `hibari-tts` package ships (its tagger and pronouncing
lexicon).
"""

from __future__ import annotations

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

from training.sentences import Vocabulary

_PLAIN_WORD = re.compile(r"[a-z]{2,13}")
# Words no example sentence needs; the lists are otherwise taken as they are.
UNWANTED = re.compile(
    r"fuck|shit|nigg|cunt|whore|slut|rape|porn|fagg|jihad|genocid|\bass\b|negro|nazi|penis|vagina"
)


def load_vocabulary(assets: Path) -> Vocabulary:
    """Read hibari's `tagger.json.gz` and `lexicon_us_gold.json.gz` under `assets`.

    Common words are those that the tagger has seen in text, so they stand for frequency; rare ones
    are the rest of the hand-checked lexicon. Only words with a hand-checked pronunciation are used.
    """
    tagger = _read(assets / "tagger.json.gz")
    spoken = {word for word in _read(assets / "lexicon_us_gold.json.gz") if _usable(word)}
    seen = set(tagger["vocab"]) | set(tagger["tagdict"])
    by_tag: dict[str, list[str]] = defaultdict(list)
    for word in sorted(seen & spoken):
        by_tag[_tag(word, tagger)].append(word)
    return Vocabulary(
        nouns=tuple(by_tag["NN"]),
        adjectives=tuple(by_tag["JJ"]),
        adverbs=tuple(by_tag["RB"]),
        past_verbs=tuple(by_tag["VBD"] + by_tag["VBN"]),
        gerunds=tuple(by_tag["VBG"]),
        common=tuple(sorted(seen & spoken)),
        rare=tuple(sorted(spoken - seen)),
    )


def _usable(word: str) -> bool:
    return _PLAIN_WORD.fullmatch(word) is not None and not UNWANTED.search(word)


def _tag(word: str, tagger: dict[str, Any]) -> str:
    """The word's only tag, or its strongest one where the tagger decides by context."""
    if word in tagger["tagdict"]:
        return str(tagger["tagdict"][word])
    weights: dict[str, float] = tagger["weights"].get(f"w={word}", {})
    return max(weights, key=weights.__getitem__) if weights else ""


def _read(path: Path) -> Any:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        return json.load(file)
