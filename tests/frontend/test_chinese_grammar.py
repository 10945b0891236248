"""Chinese numbers, read back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.frontend.grammars.chinese import DIGITS, cardinal

_PLACES = {"十": 10, "百": 100, "千": 1000}


def value_of(words: str) -> int:
    for scale, value in (("亿", 10**8), ("万", 10**4)):
        before, found, after = words.rpartition(scale)
        if found:
            return value_of(before) * value + value_of(after)
    total, digit = 0, 0
    for word in words:
        if word in _PLACES:
            total += (digit or 1) * _PLACES[word]
            digit = 0
        else:
            digit = DIGITS.index(word)
    return total + digit


@given(st.integers(0, 10**16 - 1))
def test_a_number_says_its_value(value: int) -> None:
    assert value_of(cardinal(str(value))) == value


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("10", "十"),
        ("110", "一百一十"),
        ("1001", "一千零一"),
        ("10010", "一万零一十"),
        ("100000000", "一亿"),
        ("12345678", "一千二百三十四万五千六百七十八"),
        ("1.05", "一点零五"),
    ],
)
def test_zeros_and_tens_are_said_as_usual(written: str, words: str) -> None:
    assert cardinal(written) == words
