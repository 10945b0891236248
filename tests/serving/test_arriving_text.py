"""Sentences of a text that arrives in pieces are those of the whole text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.frontend.sentence_ends import find_bounded_sentences
from cosyvoice_cpu.serving.arriving_text import ArrivingText

TEXT = (
    'Dr. Smith has 3.14 reasons. "Stop!" he cried. Then?\n\nA new paragraph: yes...  No! '
    "你好，世界。今天天气很好！ The end is near, e.g. here. Good"
)


def pieces_of(text: str, cuts: list[int]) -> list[str]:
    ends = sorted({min(cut, len(text)) for cut in cuts} | {len(text)})
    return [text[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def arrived(pieces: list[str]) -> list[str]:
    text = ArrivingText()
    return [sentence for piece in pieces for sentence in text.add(piece)] + text.end()


@given(st.lists(st.integers(0, len(TEXT)), max_size=12))
def test_how_a_text_is_cut_on_its_way_loses_nothing(cuts: list[int]) -> None:
    together = "".join("".join(arrived(pieces_of(TEXT, cuts))).split())
    assert together == "".join(TEXT.split())


def test_word_by_word_it_gives_the_sentences_of_the_whole() -> None:
    text = "Dr. Smith has 3.14 reasons. Then? The end is near, e.g. here. Good"
    words = [f"{word} " for word in text.split()]
    assert arrived(words) == [part.strip() for part in find_bounded_sentences(text)]


def test_a_sentence_comes_as_soon_as_the_next_one_has_begun() -> None:
    text = ArrivingText()
    assert text.add("One. ") == []
    assert text.add("T") == ["One."]
    assert text.add("wo!") == []
    assert text.end() == ["Two!"]
    assert text.end() == []


@pytest.mark.parametrize("text", ["", "  ", "***", "...\n\n---\n\n"])
def test_what_can_not_be_spoken_is_left_out(text: str) -> None:
    assert arrived([text]) == []


def test_what_never_ends_is_cut() -> None:
    found = ArrivingText().add("word " * 1000)
    assert len(found) > 5
    assert max(map(len, found)) <= 500
