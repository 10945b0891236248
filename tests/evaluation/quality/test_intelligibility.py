"""Word error rate: texts compare as in published figures, and errors are counted by kind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.evaluation.quality.intelligibility import (
    WordErrors,
    missing_packages,
    normalized,
    text_errors,
)

pytestmark = pytest.mark.skipif(bool(missing_packages()), reason="extra [eval] is missing")

# Letters that no rule of the normalizer joins or changes, nor takes for a filler or a number.
WORDS = st.lists(st.sampled_from("cat dog sky rain".split()), max_size=8).map(" ".join)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Twenty-five cats!", "25 cats"),
        ("one thousand chickens", "1,000 chickens"),
        ("one hundred and five", "105"),
        ("It cost three dollars and fifty cents", "it cost $3.50"),
        ("in nineteen sixty nine", "in 1969"),
        ("fifty percent", "50%"),
        ("the twenty first", "the 21st"),
        ("Dr. Lee, Mr. Wu", "doctor lee mister wu"),
        ("it’s", "it is"),
        ("the colour grey", "the color gray"),
        ("well-known", "well known"),
        ('"Yes," he said.', "yes he said"),
    ],
)
def test_two_ways_of_writing_the_same_words_are_equal(one, other):
    assert normalized(one) == normalized(other)


def test_each_chinese_character_is_a_word():
    assert normalized("你好，世界。", "zh") == "你 好 世 界"
    assert text_errors("你好，世界。", "你好世間", "zh") == WordErrors(1, 0, 0, 4)


@pytest.mark.parametrize(
    ("text", "transcript", "errors"),
    [
        ("cat dog sky", "cat dog sky", WordErrors(0, 0, 0, 3)),
        ("cat dog sky", "cat rain sky", WordErrors(1, 0, 0, 3)),
        ("cat dog sky", "cat sky", WordErrors(0, 0, 1, 3)),
        ("cat dog sky", "cat dog rain sky", WordErrors(0, 1, 0, 3)),
        ("cat dog sky", "", WordErrors(0, 0, 3, 3)),
        ("", "cat dog", WordErrors(0, 2, 0, 0)),
        ("the cat sat", "a cat sat down", WordErrors(1, 1, 0, 3)),
    ],
)
def test_errors_are_counted_by_kind(text, transcript, errors):
    assert text_errors(text, transcript) == errors


def test_the_rate_is_errors_per_word_and_finite_without_words():
    assert text_errors("The cat sat.", "a cat sat down").rate == pytest.approx(2 / 3)
    assert text_errors("", "cat dog").rate == 2.0


@given(WORDS, WORDS)
def test_errors_stay_within_their_bounds(text, transcript):
    errors, said, got = text_errors(text, transcript), text.split(), transcript.split()
    assert abs(len(said) - len(got)) <= errors.errors <= max(len(said), len(got))
    assert errors.insertions - errors.deletions == len(got) - len(said)
    assert errors.words == len(said)
    assert (errors.errors == 0) == (said == got)


@given(WORDS, WORDS, WORDS)
def test_errors_are_symmetric_and_obey_the_triangle_inequality(a, b, c):
    direct = text_errors(a, c).errors
    assert direct == text_errors(c, a).errors
    assert direct <= text_errors(a, b).errors + text_errors(b, c).errors


@given(st.text(), st.sampled_from(["en", "zh"]))
def test_any_text_can_be_compared_with_itself(text, language):
    assert text_errors(text, text, language).errors == 0
