"""Word times of generated speech."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from training.alignment import character_of_tokens, word_places, word_times
from training.phonemes import BLANK

EDGE, COMMA, SOUND = 0, 3, 50


def _units(*runs):
    return np.concatenate([np.full(length, unit, np.uint8) for unit, length in runs])


def test_words_begin_and_end_with_their_stretch_of_phonemes():
    units = _units((EDGE, 8), (SOUND, 8), (BLANK, 1), (SOUND, 15), (COMMA, 8), (SOUND, 8))
    times = word_times("One two, three.", units)
    assert times.tolist() == [[5, 10], [11, 20], [25, 30]]


def test_a_text_that_is_read_in_more_words_than_it_shows_has_no_times():
    units = _units((SOUND, 4), (BLANK, 1), (SOUND, 4))
    assert word_times("1984", units).shape == (0, 2)
    assert word_times("one", units).shape == (0, 2)


def test_tokens_of_a_text_without_times_say_no_character():
    assert np.isnan(character_of_tokens("one", np.zeros((0, 2), np.int16), 4)).all()


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 5))
def test_characters_never_run_backwards_and_every_token_lies_in_its_word(lengths, pause):
    text = " ".join("a" * length for length in lengths)
    ends = np.cumsum([length + pause for length in lengths])
    times = np.stack([ends - lengths, ends], 1).astype(np.int16)
    characters = character_of_tokens(text, times, int(ends[-1]) + 3)
    assert (np.diff(characters) >= 0).all()
    for (first, end), (start, stop) in zip(times.tolist(), word_places(text), strict=True):
        assert ((characters[first:end] >= start) & (characters[first:end] <= stop)).all()
