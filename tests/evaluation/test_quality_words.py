"""Word error rate: how texts are compared and errors are counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.evaluation.quality.numbers import cardinal, ordinal, spell_numbers
from cosyvoice_cpu.evaluation.quality.words import (
    WordErrors,
    normalized_words,
    text_errors,
    word_errors,
)

WORDS = st.lists(st.sampled_from("a b c d".split()), max_size=8)


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (15, "fifteen"),
        (40, "forty"),
        (99, "ninety nine"),
        (100, "one hundred"),
        (205, "two hundred five"),
        (342, "three hundred forty two"),
        (1000, "one thousand"),
        (10_007, "ten thousand seven"),
        (12_345, "twelve thousand three hundred forty five"),
        (1_000_001, "one million one"),
    ],
)
def test_a_number_is_spelled_as_it_is_read(number, words):
    assert cardinal(number) == words


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1, "first"),
        (12, "twelfth"),
        (20, "twentieth"),
        (23, "twenty third"),
        (31, "thirty first"),
        (100, "one hundredth"),
    ],
)
def test_a_rank_is_spelled_as_it_is_read(number, words):
    assert ordinal(number) == words


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("$3.50", "three dollars and fifty cents"),
        ("$1", "one dollar"),
        ("£2.01", "two pounds and one penny"),
        ("3:30", "three thirty"),
        ("10:05", "ten oh five"),
        ("9:00", "nine"),
        ("the 21st", "the twenty first"),
        ("1,250", "one thousand two hundred fifty"),
        ("1250", "twelve fifty"),
        ("$1500", "one thousand five hundred dollars"),
        ("in 1969", "in nineteen sixty nine"),
        ("in 2005.", "in two thousand five ."),
        ("in 2024", "in twenty twenty four"),
        ("1900", "nineteen hundred"),
        ("3.14", "three point one four"),
        ("50%", "fifty percent"),
        ("007", "zero zero seven"),
    ],
)
def test_digits_are_read_by_what_they_are(written, read):
    assert " ".join(spell_numbers(written).split()) == read


def test_numbers_of_any_length_are_read():
    nines = ["nine"] * 40
    assert spell_numbers("9" * 40).split() == nines
    assert spell_numbers("9" * 40 + "th").split() == nines


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Twenty-five cats!", "25 cats"),
        ("one hundred and five", "105"),
        ("a thousand chickens", "1,000 chickens"),
        ("Dr. Lee, Mr. and Mrs. Wu", "doctor lee mister and missus wu"),
        ("it’s", "It's"),
        ("salt & pepper", "salt and pepper"),
        ("well-known", "well known"),
        ('"Yes," he said.', "yes he said"),
    ],
)
def test_two_ways_of_writing_the_same_words_are_equal(one, other):
    assert normalized_words(one) == normalized_words(other)


def test_and_between_other_words_is_kept():
    assert normalized_words("a hundred and counting") == ["one", "hundred", "and", "counting"]


def test_each_chinese_character_is_a_word():
    assert normalized_words("你好，world") == ["你", "好", "world"]


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("a b c", "a b c", WordErrors(0, 0, 0, 3)),
        ("a b c", "a x c", WordErrors(1, 0, 0, 3)),
        ("a b c", "a c", WordErrors(0, 0, 1, 3)),
        ("a b c", "a b x c", WordErrors(0, 1, 0, 3)),
        ("a b c", "", WordErrors(0, 0, 3, 3)),
        ("", "a b", WordErrors(0, 2, 0, 0)),
        ("a b c d", "b c d e", WordErrors(0, 1, 1, 4)),
        ("the cat sat", "a cat sat down", WordErrors(1, 1, 0, 3)),
    ],
)
def test_errors_are_counted_by_kind(said, heard, errors):
    assert word_errors(said.split(), heard.split()) == errors


def test_the_rate_is_errors_per_word():
    assert text_errors("The cat sat.", "a cat sat down").rate == pytest.approx(2 / 3)


@given(WORDS, WORDS)
def test_errors_stay_within_their_bounds(said, heard):
    errors = word_errors(said, heard)
    assert abs(len(said) - len(heard)) <= errors.errors <= max(len(said), len(heard))
    assert errors.insertions - errors.deletions == len(heard) - len(said)
    assert (errors.errors == 0) == (said == heard)


@given(WORDS, WORDS)
def test_said_and_heard_in_turn_swap_insertions_and_deletions(said, heard):
    there, back = word_errors(said, heard), word_errors(heard, said)
    assert there.errors == back.errors
    assert there.substitutions == back.substitutions
    assert there.insertions == back.deletions


@given(WORDS, WORDS, WORDS)
def test_errors_obey_the_triangle_inequality(a, b, c):
    direct = word_errors(a, c).errors
    assert direct <= word_errors(a, b).errors + word_errors(b, c).errors


@given(st.text())
def test_any_text_can_be_compared_with_itself(text):
    assert text_errors(text, text).errors == 0


@given(st.text(max_size=60))
def test_normalizing_twice_changes_nothing_more(text):
    once = normalized_words(text)
    assert normalized_words(" ".join(once)) == once
