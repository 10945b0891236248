"""Characters by what they do: stops, pauses, closers, scripts without blanks, unbreakable marks."""

from __future__ import annotations

import re
import unicodedata

# Stops that end a sentence wherever they stand. The enumeration comma is among them because the
# original cuts there, and segments of the length it was used with are what the model is known for.
WIDE_STOPS = (
    "。｡！？；：、︒"  # Chinese, Japanese
    "؟۔؛"  # Arabic, Urdu
    "।॥"  # Devanagari and its neighbours
    "։"  # Armenian
    "።፧፨"  # Ethiopic
    "។៕"  # Khmer
    "။"  # Burmese
    "᠃᠉"  # Mongolian
    "\u037e"  # Greek question mark
    "‽⁇⁈⁉‼"
)
ELLIPSES = "…‥⋯"
# Stops that need a blank, the end or a script without blanks behind them: 3.14, a.b, 12:30.
NARROW_STOPS = ".?!;:．"
STOPS = frozenset(WIDE_STOPS + ELLIPSES + NARROW_STOPS)

CLOSERS = frozenset("”’»›」』）)】］]}〉》〕〗〙〛｣＇")
OPENERS = frozenset("“‘«‹「『（(【［[{〈《〔〖〘〚｢¿¡")
DOUBLE_QUOTES = frozenset('"＂')  # open or close by turns
EITHER_QUOTES = frozenset("'“‘")  # apostrophe; German closes with what English opens with

_NO_BLANKS = (
    "\u2e80-\u303f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\ufe30-\ufe4f"
    "\uff00-\uffef\U00020000-\U0003ffff"
)
_EMOJI = "\u2600-\u27bf\U0001f000-\U0001faff"
_MAY_FOLLOW_A_STOP = re.compile(rf"[\s\u200b\ufeff<\[{_NO_BLANKS}{_EMOJI}]")

PAUSE = re.compile(
    rf"(?:[{WIDE_STOPS}{ELLIPSES}，،၊፣፤፥—―]+|[,;:](?=[\s{_NO_BLANKS}])|\s[-–]+(?=\s))"
    rf"[”’»›」』）)】］}}〉》]*"
)
# A blank that may end a line; no-break blanks, as in 10 000, may not.
BLANK = re.compile(r"[^\S\u00a0\u202f\u2007]+")

HAN_OR_KANA = re.compile(
    "[々\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LETTER = re.compile(r"[^\W\d_]")
_SPEECH = re.compile(r"[^\W_]")

# Marks that the tokenizer knows as one id, and tags around words: `<|en|>`, `[breath]`, `<strong>`.
MARK = re.compile(r"<\|[^|<>\s]{1,40}\|>|\[[^\[\]\s]{1,24}\]|</?[A-Za-z]{1,12}>")
# The same, and short emphasized spans and addresses as wholes.
UNBROKEN = re.compile(
    r"<(?P<tag>strong|laughter)>[^<>]{0,60}</(?P=tag)>"
    rf"|{MARK.pattern}"
    r"|(?:https?://|www\.)[!#-;=?-~]{0,200}[A-Za-z0-9/#=&_-]"
)


def may_follow_a_stop(text: str, index: int) -> bool:
    """True if what stands at `index` shows that a narrow stop before it is the end of a word."""
    return index >= len(text) or _MAY_FOLLOW_A_STOP.match(text, index) is not None


def counts_in_characters(text: str) -> bool:
    """True where Han and kana carry the text, so that a character is about a syllable."""
    dense = len(HAN_OR_KANA.findall(text))
    return dense > 0 and 5 * dense >= len(_LETTER.findall(text))


def has_speech(text: str) -> bool:
    """True if there is a letter, a digit or a mark; punctuation and emoji alone can't be spoken."""
    return _SPEECH.search(text) is not None


def may_cut(text: str, index: int) -> bool:
    """True if text[index] begins what a reader sees as a new character, and may begin a line.

    The common cases of Unicode's grapheme clusters (UAX 29) and no closing mark at a line's start.
    """
    before, after = text[index - 1], text[index]
    if after in CLOSERS or after in STOPS or after in "，,،ー々" or before in OPENERS:
        return False
    if after == "\n" and before == "\r":
        return False
    if _extends(after) or before in "\u200d\u200c" or unicodedata.combining(before) == _VIRAMA:
        return False
    if "\ud800" <= before <= "\udbff" and "\udc00" <= after <= "\udfff":
        return False
    if _is_flag_letter(before) and _is_flag_letter(after):
        first = index - 1
        while first > 0 and _is_flag_letter(text[first - 1]) and index - first < _LONGEST_FLAGS:
            first -= 1
        return (index - first) % 2 == 0
    return True


_VIRAMA = 9  # canonical combining class: joins the consonant before to the one behind
_LONGEST_FLAGS = 64


def _extends(character: str) -> bool:
    """Combining marks, joiners, skin tones, tags, Hangul vowels and finals, Thai and Lao am."""
    return (
        unicodedata.category(character)[0] == "M"
        or character in "\u200c\u200d\u0e33\u0eb3\uff9e\uff9f"
        or "\u1160" <= character <= "\u11ff"
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or "\U000e0020" <= character <= "\U000e007f"
    )


def _is_flag_letter(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
