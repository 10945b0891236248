"""Rows of the speech LM's training, laid out as at inference (CosyVoice cosyvoice/llm/llm.py,
CosyVoice3LM):

    sos | system prefix, text 1, text 2 .. | task | speech 1, speech 2 .. | eos

Several texts in a row are what zero-shot synthesis looks like: prompt and target, their ids joined.
In half of these rows the texts are joined with a blank, as `synth` joins the sentences of a piece,
and now and then with another mark than a full stop: what the generator reads alone seldom goes on
after one, and the LM would take every such mark for the end of the speech.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.alignment import character_of_tokens
from training.guided_attention import HEADS, allowed_pieces
from training.pairs import Pairs
from training.spelling import SYSTEM_PREFIX, Spelling

SPELLING_DROPOUT = 0.1
# What a full stop between two joined texts becomes; the pause is the same.
MARKS = (".", ".", "!", ";", ":")


@dataclass(frozen=True)
class Row:
    """Prefix and text ids, speech tokens, and where its tokens may look.

    A mask set is (first token, first text id, one mask [tokens, pieces] per guided head).
    """

    text: list[int]
    speech: NDArray[np.int64]
    masks: list[tuple[int, int, list[NDArray[np.bool_]]]]


class RowMaker:
    """Lays texts out in rows."""

    def __init__(self, spelling: Spelling) -> None:
        self._spelling = spelling
        self._prefix = spelling.encode(SYSTEM_PREFIX)

    def joined(
        self, pairs: Pairs, numbers: Sequence[int], rng: np.random.Generator | None = None
    ) -> Row:
        """The texts `numbers` of `pairs` in one row: spelled as at inference and joined without a
        blank, or with an `rng` now and then spelled loosely and joined with one.
        """
        text, speech = list(self._prefix), []
        masks: list[tuple[int, int, list[NDArray[np.bool_]]]] = []
        spoken = 0
        between = " " * int(rng.integers(2)) if rng is not None else ""
        texts = [pairs.texts[n] for n in numbers]
        if rng is not None and between:
            texts = vary_marks(texts, rng)
        for n, said in zip(numbers, texts, strict=True):
            rate = 0.0 if rng is None else SPELLING_DROPOUT * rng.integers(2)
            before = between if masks else ""
            pieces = self._spelling.pieces(before + said, rate, rng or np.random.default_rng(0))
            edges = np.cumsum([0, *map(len, pieces)], dtype=np.float32) - len(before)
            ids = pairs.ids[n].astype(np.int64)
            characters = character_of_tokens(pairs.texts[n], pairs.times[n], len(ids))
            masks.append((spoken, len(text), allowed_pieces(edges[:-1], edges[1:], characters)))
            text += self._spelling.ids(pieces)
            speech.append(ids)
            spoken += len(ids)
        return Row(text, np.concatenate(speech), masks)


def vary_marks(texts: Sequence[str], rng: np.random.Generator) -> list[str]:
    """`texts` with a mark of `MARKS` for the full stop of each but the last, and a small letter
    behind a semicolon or colon. No text changes its length.
    """
    out = list(texts)
    for place, text in enumerate(out[:-1]):
        if not text.endswith("."):
            continue
        mark = str(rng.choice(MARKS))
        out[place] = text[:-1] + mark
        following = out[place + 1]
        if mark in ";:" and not following.startswith(("I ", "I'")):
            out[place + 1] = following[:1].lower() + following[1:]
    return out


def allowed_positions(batch: Sequence[Row], length: int) -> list[NDArray[np.bool_]]:
    """The rows' masks as [B, L, L] over positions, one array per guided head: the position that
    predicts a token asks, text answers.
    """
    out = [np.zeros((len(batch), length, length), bool) for _ in HEADS]
    for number, row in enumerate(batch):
        task = len(row.text) + 1
        for token, text, masks in row.masks:
            for whole, mask in zip(out, masks, strict=True):
                tokens, pieces = mask.shape
                queries = slice(task + token, task + token + tokens)
                whole[number, queries, 1 + text : 1 + text + pieces] = mask
    return out
