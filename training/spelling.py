"""The voice's own byte-level BPE: few merges, so that words it has not met are spelled from parts
it has.

Its pieces stay long enough for the rule that speech has at least 2 tokens per text id. In training
a merge is left out now and then (BPE dropout, arXiv 1910.13267): the same word comes in several
spellings, which is how the language model learns what the parts sound like.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from cosyvoice_cpu.checkpoint.synthetic_text import bpe_vocabulary
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

MERGES = 640
SYSTEM_PREFIX = COSYVOICE3.system_prefix + COSYVOICE3.end_of_prompt
_HEADER = "#version: 0.2"
_CONTROL_TOKENS = 3  # <|endoftext|>, <|im_start|>, <|im_end|>
_LEARNED_WORDS = 15000  # the most frequent ones decide the merges
_PATTERN = re.compile(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^A-Za-z0-9]?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\s+"
)
_BLANK = "Ġ"  # how byte-level BPE writes a blank


def learn_merges(texts: Iterable[str], count: int = MERGES) -> list[str]:
    """The `count` most useful merges for `texts` and the system prefix, as lines of `merges.txt`.

    Words are counted with their leading blank, as Qwen2's pattern cuts them. Ties go to the pair
    that sorts first.
    """
    words = Counter(word for text in texts for word in _words(text))
    words = Counter(dict(words.most_common(_LEARNED_WORDS)))
    frequent = max(words.values())
    words.update({word: frequent for word in _words(COSYVOICE3.system_prefix)})
    spelled = {word: list(word) for word in words}
    merges: list[str] = []
    while len(merges) < count:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in spelled.items():
            for pair in pairwise(parts):
                pairs[pair] += words[word]
        best = max(pairs, key=lambda pair: (pairs[pair], [-ord(c) for c in "".join(pair)]))
        merges.append(" ".join(best))
        for parts in spelled.values():
            _merge(parts, best)
    return merges


def _words(text: str) -> list[str]:
    """ASCII `text` cut as Qwen2's pattern cuts it, blanks written as byte-level BPE writes them."""
    return [word.replace(" ", _BLANK) for word in _PATTERN.findall(text)]


def _merge(parts: list[str], pair: tuple[str, str]) -> None:
    i = 0
    while i < len(parts) - 1:
        if parts[i] == pair[0] and parts[i + 1] == pair[1]:
            parts[i : i + 2] = [pair[0] + pair[1]]
        i += 1


def write_tokenizer(folder: Path, merges: Sequence[str]) -> None:
    """`vocab.json`, `merges.txt` and `tokenizer_config.json` of an official text folder."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = bpe_vocabulary(list(merges))
    (folder / "vocab.json").write_text(
        json.dumps(vocabulary, ensure_ascii=False, separators=(",", ":")), encoding="utf-8"
    )
    (folder / "merges.txt").write_text("\n".join([_HEADER, *merges, ""]), encoding="utf-8")
    control = COSYVOICE3.special_tokens[:_CONTROL_TOKENS]
    config = {
        "added_tokens_decoder": {
            str(len(vocabulary) + i): {"content": token, "special": True}
            for i, token in enumerate(control)
        },
        "eos_token": control[0],
        "pad_token": control[0],
        "tokenizer_class": "Qwen2Tokenizer",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


class Spelling:
    """Text to ids, exactly as at inference or with merges left out at random."""

    def __init__(self, folder: Path) -> None:
        self._tokenizer = TextTokenizer.load(folder)
        self._vocabulary: dict[str, int] = json.loads((folder / "vocab.json").read_text("utf-8"))
        lines = (folder / "merges.txt").read_text("utf-8").splitlines()[1:]
        pairs = [tuple(line.split(" ")) for line in lines]
        self._pairs = [(left, right) for left, right in pairs]
        self._rank = {pair: rank for rank, pair in enumerate(self._pairs)}
        self.rows = self._tokenizer.vocabulary_size

    def encode(self, text: str) -> list[int]:
        """Ids of `text` as at inference; special tokens are one id each."""
        return self._tokenizer.encode(text)

    def encode_loosely(self, text: str, rate: float, rng: np.random.Generator) -> list[int]:
        """Ids of `pieces`."""
        return self.ids(self.pieces(text, rate, rng))

    def pieces(self, text: str, rate: float, rng: np.random.Generator) -> list[str]:
        """ASCII `text` without special tokens, cut; one character of a piece is one of the text. A
        possible merge is passed over with probability `rate` each time it comes up; with rate 0
        the cut is that of `encode`.
        """
        return [part for word in _words(text) for part in self._cut(word, rate, rng)]

    def ids(self, pieces: Iterable[str]) -> list[int]:
        """The pieces' ids."""
        return [self._vocabulary[piece] for piece in pieces]

    def _cut(self, word: str, rate: float, rng: np.random.Generator) -> list[str]:
        parts = list(word)
        while True:
            ranks = [
                self._rank[pair]
                for pair in pairwise(parts)
                if pair in self._rank and (rate == 0 or rng.random() >= rate)
            ]
            if not ranks:
                return parts
            _merge(parts, self._pairs[min(ranks)])
