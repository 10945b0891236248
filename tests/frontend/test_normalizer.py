"""Normalization with wetext, and without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.frontend import normalizer
from cosyvoice_cpu.frontend.normalizer import normalize, normalizer_installed
from cosyvoice_cpu.frontend.writing_systems import MARK

needs_wetext = pytest.mark.skipif(not normalizer_installed(), reason="wetext is not installed")


@needs_wetext
@pytest.mark.parametrize(
    "text, expected",
    [
        ("在2024年花了3.5元。", "在二零二四年花了三点五元。"),
        ("I have 3 apples. It cost $5.", "I have three apples. It cost five dollars."),
        ("今天3号。I have 3.", "今天三号。I have three."),
        # what wetext alone gets wrong or fails on
        ("line 1\nline 2\u2028line 3", "line one\nline two\u2028line three"),
        ("5 . . .", "five . . ."),
        (". . .", ". . ."),
        ('He said "5" to me.', 'He said "five" to me.'),
        ("  5 apples  ", "  five apples  "),
        ("GPT-4和Qwen2有3个。", "GPT-4和Qwen2有三个。"),
        (
            "请看https://example.com/a5和a5@b.co，共2个。",
            "请看https://example.com/a5和a5@b.co，共两个。",
        ),
        # marks
        ("<|en|>I have 3[breath]and 4.", "<|en|>I have three[breath]and four."),
        ("<strong>3个</strong>[j][ǐ]予", "<strong>三个</strong>[j][ǐ]予"),
        # not English, not Chinese
        ("У меня 3 кошки.", "У меня 3 кошки."),
        ("고양이 3마리.", "고양이 3마리."),
        ("C:\\temp\\5", "C:\\temp\\5"),
        ("", ""),
        (" \n ", " \n "),
        ("😀", "😀"),
    ],
)
def test_numbers_are_written_as_they_are_read(text: str, expected: str) -> None:
    assert normalize(text) == expected


@needs_wetext
def test_a_stated_language_decides() -> None:
    assert normalize("3 ok", "en") == "three ok"
    assert normalize("3", "zh") == "三"
    assert normalize("3", "ja") == "三"
    assert normalize("3", "de") == "3"


@needs_wetext
@settings(max_examples=100)
@given(st.lists(st.sampled_from([*"37.,:%$-/ \n\"'。", "a", "年", "é", "<|en|>", ". . ."])))
def test_no_text_makes_it_fail_or_lose_a_mark(parts: list[str]) -> None:
    text = "".join(parts)
    assert MARK.findall(normalize(text)) == MARK.findall(text)


@pytest.fixture
def without_wetext(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "wetext", None)  # makes `import wetext` fail
    normalizer.normalizer_installed.cache_clear()
    yield
    normalizer.normalizer_installed.cache_clear()


@pytest.mark.usefixtures("without_wetext")
def test_without_wetext_text_passes_unless_normalization_is_required() -> None:
    assert normalize("I have 3.") == "I have 3."
    with pytest.raises(MissingExtraError, match="needs wetext") as caught:
        normalize("I have 3.", required=True)
    assert "cosyvoice-cpu[text]" in caught.value.hint
