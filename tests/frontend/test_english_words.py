"""English number words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.frontend.grammars.english_words import cardinal, number, plural, year

_VALUES = {word: value for value, word in enumerate(map(cardinal, range(20)))}
_VALUES |= {cardinal(ten): ten for ten in range(20, 100, 10)}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12} | {
    "quadrillion": 10**15
}


def value_of(words: str) -> int:
    """Reads a cardinal back."""
    total = group = 0
    for word in words.split():
        if word in _VALUES:
            group += _VALUES[word]
        elif word == "hundred":
            group *= 100
        elif word != "and":
            total, group = total + group * _SCALES[word], 0
    return total + group


@given(st.integers(0, 10**18 - 1))
def test_a_cardinal_says_its_number(value: int) -> None:
    assert value_of(cardinal(value)) == value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (1905, "nineteen oh five"),
        (1990, "nineteen ninety"),
        (1900, "nineteen hundred"),
        (2000, "two thousand"),
        (2005, "two thousand five"),
        (2024, "twenty twenty four"),
    ],
)
def test_a_year_is_read_in_two_halves(value: int, words: str) -> None:
    assert year(value) == words


def test_decimals_and_plurals() -> None:
    assert number("12.05") == "twelve point zero five"
    assert [plural(word) for word in ("meter", "ninety", "frame per second", "hertz")] == [
        "meters",
        "nineties",
        "frames per second",
        "hertz",
    ]
