"""The whole pass: what becomes of the texts that people really have."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_cpu.frontend.grammars import normalizer_installed
from cosyvoice_cpu.frontend.lexicon import Lexicon
from cosyvoice_cpu.frontend.marks import MarkTable
from cosyvoice_cpu.frontend.reading import Note, Reader, ReadingOptions, Sentence
from cosyvoice_cpu.generations import generation_named

MARKS = MarkTable(generation_named("cosyvoice3").special_tokens)
needs_wetext = pytest.mark.skipif(not normalizer_installed(), reason="wetext is not installed")


def read(text: str, **options) -> list[str | float]:
    """Sentences without outer blanks, and the seconds of pauses."""
    items = Reader(MARKS, ReadingOptions(**options)).items(text)
    return [
        item.text.strip() if isinstance(item, Sentence) else item.seconds
        for item in items
        if not isinstance(item, Note)
    ]


def said(text: str, **options) -> str:
    return " ".join(str(item) for item in read(text, **options))


def notes(text: str, **options) -> list[str]:
    items = Reader(MARKS, ReadingOptions(**options)).items(text)
    return [item.text for item in items if isinstance(item, Note)]


@needs_wetext
@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Der Bus kommt in 25 Minuten.", "Der Bus kommt in 25 Minuten."),
        ("Le train part dans 25 minutes.", "Le train part dans 25 minutes."),
        ("The café has 25 tables.", "The café has twenty five tables."),
        (
            "We sold 1,500 units in 上海 last year.",
            "We sold one thousand five hundred units in 上海 last year.",
        ),
    ],
)
def test_numbers_are_spelled_only_in_the_language_that_the_words_speak_for(text, spoken):  # T01 T02
    assert said(text) == spoken


@needs_wetext
@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("答案是：42。", "答案是： 四十二。"),
        ("2、按下开关。", "二、 按下开关。"),
        ("身高：180cm；体重：75kg。", "身高： 一百八十厘米； 体重： 七十五千克。"),
        ("The result\n\n42", "The result. forty two"),
        ("25\n\nApples are what we have.", "twenty five. Apples are what we have."),
        ("25\n\nÄpfel haben wir nicht.", "25. Äpfel haben wir nicht."),
    ],
)
def test_what_has_no_letters_follows_its_neighbours(text, spoken):  # T03
    assert said(text) == spoken


@needs_wetext
@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("体重75kg，身高180cm。", "体重七十五千克，身高一百八十厘米。"),
        ("速度是120km/h。", "速度是每小时一百二十公里。"),
        ("我有GPT-4和A4和5G和Qwen2。", "我有GPT-4和A4和5G和Qwen2。"),
        ("电压220V和50 Hz。", "电压两百二十伏和五十赫兹。"),
    ],
)
def test_a_unit_stays_with_its_number_and_a_name_with_its_digits(text, spoken):  # T04
    assert said(text) == spoken


@needs_wetext
def test_kana_mean_japanese_and_kanji_are_worth_a_note():  # T05
    assert said("コーヒーは1,200円です。") == "コーヒーは千二百円です。"
    assert "kanji are read as Chinese" in notes("コーヒーは1,200円です。")[0]
    assert notes("これはペンです。") == []


@needs_wetext
def test_what_the_grammars_get_wrong_is_prepared_for_them():  # T06
    expected = "去年卖了一千二百三十四万五千六百七十八台。"
    assert said("去年卖了12,345,678台。") == expected
    assert said("The 1990s were loud.") == "The nineteen nineties were loud."


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The **quick** _brown_ ~~red~~ fox.", "The quick brown red fox."),
        ("# Title", "Title"),
        ("# Title\nThe text.", "Title. The text."),
        ("Title\n=====\nThe text.", "Title. The text."),
        ("- apples\n- **pears**\n* figs", "apples. pears. figs"),
        ("- [x] done\n- [ ] open", "done. open"),
        ("See [the page](https://a.b/c_(d)) and ![a cat](cat.png).", "See the page and a cat."),
        ("Use `a_b*c` here.", "Use a_b*c here."),
        ("Look:\n\n```python\nprint(x)\nexit()\n```\n\nDone.", "Look: print(x). exit(). Done."),
        ("| a | b |\n|---|---|\n| c | d |", "a, b. c, d"),
        ("> quoted words\n> go on.", "quoted words go on."),
        ("Great 😀 work 👍🏽!", "Great work!"),
        ("One.\n\n---\n\nTwo.", "One. Two."),
        ("这是**重点**内容。", "这是重点内容。"),
        ("Escaped \\*stars\\*.", "Escaped *stars*."),
    ],
)
def test_of_markup_the_words_are_spoken(text, words):  # T07
    assert said(text, normalize=False) == words
    assert read(text, markup=False, normalize=False) != read(text, normalize=False)


@pytest.mark.parametrize(
    "text",
    [
        "2*3*4 = 24 and 2**3 = 8",
        "snake_case_name and __init__.py",
        "C# and #5 and 5 > 3 and a < b",
        "f(x) [1] (see below)",
        "C:\\temp\\new",
        "Rock & Roll",
    ],
)
def test_what_only_looks_like_markup_is_left_alone(text):
    assert said(text, normalize=False) == text


def test_an_option_keeps_the_text_as_it_is():
    text = "# The **quick** <b>fox</b> &amp; [pause 1s]"
    assert said(text, markup=False, normalize=False) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Wait here. <break time="1s"/> Now go on.', ["Wait here.", 1.0, "Now go on."]),
        ("Wait [pause 500ms] here.", ["Wait", 0.5, "here."]),
        ("[pause 1.5s]Go.[PAUSE: 250 ms]", [1.5, "Go.", 0.25]),
        ('A <break strength="strong"/> b', ["A", 1.0, "b"]),
        ("<speak>A &lt; b<break time='20ms'></break></speak>", ["A < b", 0.02]),
        ('The <sub alias="World Wide Web">WWW</sub>.', ["The World Wide Web."]),
        ("<p>One</p><p>Two</p>", ["One.", "Two"]),
        ("甲。[停顿 300ms]乙。", ["甲。", 0.3, "乙。"]),
        ("A <pause 2s> b <pause time='1s'/> c", ["A", 2.0, "b", 1.0, "c"]),
        ("A [break 1s] b [silence: .5s] c [pause]", ["A", 1.0, "b", 0.5, "c", 0.5]),
    ],
)
def test_pauses_are_silence_and_of_tags_the_words_are_spoken(text, expected):  # T08
    assert read(text, normalize=False) == expected


def test_a_tag_without_effect_and_a_pause_that_is_too_long_are_named():
    assert notes('<prosody rate="slow">Hi</prosody>') == [
        "<prosody> has no effect here; its words are spoken"
    ]
    assert notes("Hi [pause 90s] you") == ["a pause of 90 s is shortened to 60 s"]
    assert notes('Hi <break time="soon"/>')[0].startswith("<break time='soon'> is no time")


@pytest.mark.parametrize(
    ("text", "mark", "nearest"),
    [
        ("That is funny. [laugh] Really.", "[laugh]", "[laughter]"),
        ("Well [Sigh] yes.", "[Sigh]", "[sigh]"),
        ("Well <laughing> yes.", "<laughing>", "<laughter>"),
        ("Oh <|laughter|> no.", "<|laughter|>", "<laughter>"),
        ("好（laughter）的。", "（laughter）", "[laughter]"),
        ("Well (laughs) yes.", "(laughs)", "[laughter]"),
        ("【笑】好的。", "【笑】", "[laughter]"),
        ("Say [AA3] now.", "[AA3]", "[AA"),
    ],
)
def test_an_unknown_mark_is_named_with_the_nearest_known_one(text, mark, nearest):  # T09
    (note,) = notes(text, normalize=False)
    assert note.startswith(f"{mark} is no mark of this model")
    assert nearest in note


def test_a_language_mark_of_another_model_is_left_out_and_named():
    assert said("<|en|>Hello") == "Hello"
    assert notes("<|en|>Hello")[0].startswith("<|en|> is no mark of this model and is left out")


def test_a_mark_in_another_case_or_with_blanks_inside_is_mended_where_it_is_a_tag():
    assert said("<Strong >you</STRONG>") == "<strong>you</strong>"


def test_marks_of_the_model_stay_without_a_word():
    text = "[breath]Hi <strong>you</strong>[j][ǐ] [AA0] <laughter>ha</laughter>."
    assert said(text) == text
    assert notes(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Shopping list\nApples\nPears\n\nChapter One\n\nIt was late.",
            ["Shopping list.", "Apples.", "Pears.", "Chapter One.", "It was late."],
        ),
        (
            "This is prose that an editor has wrapped at a\ncolumn, so its lines are joined and it "
            "is\nread in one breath.",
            ["This is prose that an editor has wrapped at a column, so its lines are joined and it "
             "is read in one breath."],
        ),
        ("购物清单\n苹果\n梨", ["购物清单。", "苹果。", "梨"]),
        ("今天天气很好，我们去公园玩吧，好不\n好？", ["今天天气很好，我们去公园玩吧，好不好？"]),
        ("It weighs 25\nkilograms.", ["It weighs 25 kilograms."]),
    ],
)  # fmt: skip
def test_list_lines_are_stops_and_wrapped_prose_is_joined(text, expected):  # T11
    assert read(text, normalize=False) == expected


@pytest.fixture
def without_wetext(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(sys.modules, "wetext", None)  # makes `import wetext` fail
    normalizer_installed.cache_clear()
    yield
    normalizer_installed.cache_clear()


@pytest.mark.usefixtures("without_wetext")
def test_without_wetext_one_line_says_that_numbers_are_left_to_the_model():  # T12
    text = "I have 25 apples and 3 pears. You have 4.\n\nWe have 5."
    assert notes(text) == [
        "numbers are left to the model; to have them written out: pip install 'cosyvoice-cpu[text]'"
    ]
    assert notes("I have apples.") == []
    assert notes(text, normalize=False) == []


def test_a_language_without_a_grammar_gets_one_line_as_well():
    (note,) = notes("Der Bus kommt in 25 Minuten. Er kommt um 3 Uhr.")
    assert note.startswith("numbers are left to the model where the language is not known")


@pytest.mark.parametrize(
    "text", ["I don't know.", "l'homme", "the dogs' bowls", "it's the '90s", "O'Neill's"]
)
def test_a_typographic_apostrophe_is_the_ascii_one(text):  # T13
    assert said(text.replace("'", "\u2019"), normalize=False) == text


def test_quotation_marks_stay():
    text = "‘Yes’ and ‘the others’ said so."
    assert said(text, normalize=False) == text


@needs_wetext
def test_a_stated_language_wins_over_all_evidence():
    assert said("Der Bus kommt in 25 Minuten.", language="en").endswith("twenty five Minuten.")
    assert said("I have 25.", language="de") == "I have 25."
    assert said("I have 25.", language="zh") == "I have 二十五."


@needs_wetext
def test_readings_of_a_lexicon_come_before_numbers():
    lexicon = Lexicon({"C3PO": "see three P O", "给予": "jǐ yǔ"}, MARKS.known)
    assert said("I have c3po and 3.", lexicon=lexicon) == "I have see three P O and three."
    assert said("他给予我。", lexicon=lexicon) == "他[j][ǐ][y][ǔ]我。"


HEAP = [
    *"*_`~#[]()<>|!-&;\\\n /\"'",
    *"** a 5 。 <b> ``` ]( &amp; <break 😀".split(),
    *["[pause 1s]", "\n\n", "| - |"],
]


def squash(text: str) -> str:
    return "".join(text.split())


PLAIN = st.lists(
    st.sampled_from(
        "Anna said that it is late. | 今天天气很好。 | Wie geht es? | 元気です、はい。 |"
        " Привет, мир! | ( | ) | , | 3.14 | [breath] | <strong>x</strong> | \n |"
        " \n\n | — | … | \t | ' | \" ".split("|")
    ),
    max_size=30,
).map("".join)


@settings(max_examples=200, deadline=None)
@given(PLAIN)
def test_of_a_text_without_markup_nothing_is_lost_or_reordered(text):
    words = squash("".join(str(part) for part in read(text, normalize=False)))
    left = iter(words)
    assert all(character in left for character in squash(text)), words  # only stops are added
    added = len(words) - len(squash(text))
    assert added <= text.count("\n")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(HEAP)).map("".join))
def test_no_heap_of_marks_makes_it_fail(text):
    read(text)
    read(text, markup=False)


@pytest.mark.parametrize(
    "unit",
    [
        *[
            "Good morning. ",
            "Good morning.\n\n",
            "**a** _b_ ",
            "[a](b.c) ",
            "<b>x</b>",
            "*",
            "[",
            "`",
        ],
        *["| a ", "[laugh]", "a\n", "天", "&amp;", "_a ", "'", "\u2019", "3 ", "3", "<break "],
    ],
)
def test_a_megabyte_gives_its_first_sentence_at_once(unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    next(iter(Reader(MARKS, ReadingOptions()).items(text)), None)
    assert time.process_time() - started < 4
