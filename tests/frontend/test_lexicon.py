"""Readings of a user's words: as text, pinyin, ARPAbet or the model's marks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_cpu.errors import TextError
from cosyvoice_cpu.frontend.lexicon import Lexicon
from cosyvoice_cpu.generations import generation_named

MARKS = generation_named("cosyvoice3").special_tokens


def written(tmp_path: Path, content: str) -> Lexicon:
    path = tmp_path / "words.txt"
    path.write_text(content, encoding="utf-8")
    return Lexicon.load(path, MARKS)


@pytest.mark.parametrize(
    ("line", "sentence", "spoken"),
    [
        ("CosyVoice\tCosy Voice", "CosyVoice speaks.", "Cosy Voice speaks."),
        ("SQL = sequel", "MySQL and SQL.", "MySQL and sequel."),
        ("cat,dog", "Cat, cats, CAT.", "dog, cats, dog."),
        ("New York  Noo York", "In New York.", "In Noo York."),
        ("nginx engine x", "nginx", "engine x"),
        ("给予\tjǐ yǔ", "他给予我", "他[j][ǐ][y][ǔ]我"),
        ("给予\tji3 yu3", "他给予我", "他[j][ǐ][y][ǔ]我"),
        ("重庆\t[ch][óng]庆", "去重庆。", "去[ch][óng]庆。"),
        ("战略\tzhan4 lve4", "战略", "[zh][àn][l][vè]"),
        ("儿\ter2", "儿", "[ér]"),
        ("安\tan1", "安", "[ān]"),
        ("女\tnü3", "女", "[n][ǚ]"),
        ("tomato\tT AH0 M AA1 T OW2", "A tomato.", "A [T][AH0][M][AA1][T][OW2]."),
        ("C++\tsee plus plus", "I like C++ and C.", "I like see plus plus and C."),
        ("breath\twind", "[breath] of breath", "[breath] of wind"),
        ("# a comment\n\nUSA\tU S A", "USA", "U S A"),
    ],
)
def test_a_word_is_spoken_by_its_reading(
    tmp_path: Path, line: str, sentence: str, spoken: str
) -> None:
    assert written(tmp_path, line).apply(sentence) == spoken


def test_longer_words_and_exact_case_come_first() -> None:
    lexicon = Lexicon({"York": "a", "New York": "b", "us": "we", "US": "U S"}, MARKS)
    assert lexicon.apply("New York, York, us, US") == "b, a, we, U S"


@pytest.mark.parametrize(
    ("content", "what", "hint"),
    [
        ("word", "line 1: expected a word and its reading", "separate the two by a tab"),
        ("a\tb\na\tc", "line 2: 'a' has a reading already", "keep one of them"),
        ("a\t[laugh]", "line 1: [laugh] is no mark of this model", "the nearest is [laughter]"),
        ("a\tZZ1 AH0", "line 1: 'ZZ1' is not an ARPAbet phone that this model has", "give"),
        ("天\tqqq1", "line 1: 'qq' is not a part of a pinyin syllable that this model has", "give"),
    ],
)
def test_a_line_that_is_no_reading_is_named(
    tmp_path: Path, content: str, what: str, hint: str
) -> None:
    with pytest.raises(TextError) as caught:
        written(tmp_path, content)
    assert caught.value.what.endswith(what)
    assert caught.value.hint.startswith(hint)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(TextError, match="can't be read"):
        Lexicon.load(tmp_path / "none.txt")
    (tmp_path / "bytes.txt").write_bytes(b"a\t\xff")
    with pytest.raises(TextError, match="is not UTF-8"):
        Lexicon.load(tmp_path / "bytes.txt")


def test_an_empty_lexicon_changes_nothing() -> None:
    assert Lexicon({}).apply("Hello.") == "Hello."
