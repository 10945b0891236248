"""Rows of the speech LM's training."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.lm_rows import RowMaker, allowed_positions, vary_marks
from training.pairs import Pairs
from training.spelling import (
    SYSTEM_PREFIX,
    Spelling,
    learn_merges,
    write_tokenizer,
)

TEXTS = ["A tone.", "Another tone."]
TIMES = [np.array([[0, 2], [3, 8]], np.int16), np.array([[0, 6], [7, 12]], np.int16)]
PAIRS = Pairs(TEXTS, [np.arange(10, dtype=np.int16), np.arange(20, 34, dtype=np.int16)], TIMES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("text")
    write_tokenizer(folder, learn_merges(TEXTS, count=12))
    return folder


@pytest.fixture(scope="module")
def spelling(folder):
    return Spelling(folder)


@pytest.fixture(scope="module")
def pieces_of(folder, spelling):
    """The pieces of a row's texts, prefix taken off."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    names = {number: piece.replace("Ġ", " ") for piece, number in vocabulary.items()}
    prefix = spelling.encode(SYSTEM_PREFIX)

    def pieces(row):
        assert row.text[: len(prefix)] == prefix
        return [names[number] for number in row.text[len(prefix) :]]

    return pieces


def test_without_a_generator_texts_are_spelled_as_at_inference_without_a_blank(spelling):
    row = RowMaker(spelling).joined(PAIRS, [0, 1])
    ids = [number for text in (SYSTEM_PREFIX, *TEXTS) for number in spelling.encode(text)]
    assert row.text == ids
    assert row.speech.tolist() == [*range(10), *range(20, 34)]


def test_about_half_of_the_rows_join_their_texts_with_a_blank(spelling, pieces_of):
    maker = RowMaker(spelling)
    rows = [maker.joined(PAIRS, [0, 1], np.random.default_rng(seed)) for seed in range(60)]
    texts = ["".join(pieces_of(row)) for row in rows]
    joined = [text for text in texts if text != "A tone.Another tone."]
    assert all(text[7:].lower() == " another tone." for text in joined)
    assert 15 <= len(joined) <= 45
    assert {text[:7] for text in joined} == {"A tone.", "A tone!", "A tone;", "A tone:"}


@given(st.lists(st.sampled_from(["A tone.", "I do.", "Who?", "So", "the end."]), min_size=1))
def test_other_marks_leave_length_and_words_as_they_are(texts):
    varied = vary_marks(texts, np.random.default_rng(len(texts)))
    assert [len(text) for text in varied] == [len(text) for text in texts]
    assert varied[-1][1:] == texts[-1][1:]
    for text, before in zip(varied, texts, strict=True):
        assert text.rstrip(".!;:").lower() == before.rstrip(".").lower()
        assert text.startswith("I") == before.startswith("I")


def test_speech_looks_at_the_word_it_says_with_and_without_a_blank(spelling, pieces_of):
    maker = RowMaker(spelling)
    for seed in range(12):
        row = maker.joined(PAIRS, [0, 1], np.random.default_rng(seed))
        pieces = pieces_of(row)
        prefix = len(row.text) - len(pieces)
        length = len(row.text) + len(row.speech) + 2
        said, _ = allowed_positions([row], length)
        starts = np.cumsum([0, *map(len, pieces)])
        second = "".join(pieces).lower().index("another")
        first_of_second, last_of_second = len(row.text) + 1 + 10, len(row.text) + 1 + 10 + 5
        for query, place in ((first_of_second, second), (last_of_second, second + 6)):
            keys = np.flatnonzero(said[0, query]) - 1 - prefix
            assert any(starts[key] <= place < starts[key + 1] for key in keys)
            assert all(starts[key] <= place + 3 and starts[key + 1] >= place - 3 for key in keys)
