"""Which word is spoken when: the times that the generators know, in speech tokens.

A generator gives time to every phoneme and to the blanks between words, so the words of a text and
the stretches of its phonemes are in the same order.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from training.phonemes import BLANK, PAUSES

_UNITS_PER_TOKEN = 1.6  # a unit is 25 ms, a token 40 ms
_WORD = re.compile(r"[A-Za-z][A-Za-z']*")


def word_places(text: str) -> list[tuple[int, int]]:
    """First character and end of every word of `text`."""
    return [found.span() for found in _WORD.finditer(text)]


def word_times(text: str, units: NDArray[np.uint8]) -> NDArray[np.int16]:
    """First speech token and end [W, 2] of the words of `text`, from the phoneme id of every 25 ms.

    Empty [0, 2] when the phonemes are not parted into as many stretches as there are words, as with
    digits or abbreviations that are read out.
    """
    spoken = ~np.isin(units, (BLANK, *PAUSES))
    edges = np.diff(spoken.astype(np.int8), prepend=0, append=0)
    stretches = np.stack([np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)], 1)
    if len(stretches) != len(word_places(text)):
        return np.zeros((0, 2), np.int16)
    times: NDArray[np.int16] = np.round(stretches / _UNITS_PER_TOKEN).astype(np.int16)
    return times


def character_of_tokens(text: str, times: NDArray[np.int16], tokens: int) -> NDArray[np.float32]:
    """The character of `text` [tokens] that each speech token says, counted from 0; a pause stands
    at the end of the word before. NaN everywhere when `times` is empty.
    """
    if not len(times):
        return np.full(tokens, np.nan, np.float32)
    at, character = [-1.0], [0.0]
    for (first, end), (start, stop) in zip(times.tolist(), word_places(text), strict=True):
        at += [first, max(first + 0.5, end)]
        character += [start, stop]
    said: NDArray[np.float32] = np.interp(np.arange(tokens) + 0.5, at, character).astype(np.float32)
    return said
