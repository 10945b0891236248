"""Numbers are spelled as they are read."""

from __future__ import annotations

import pytest

from training.numbers import cardinal, ordinal


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
