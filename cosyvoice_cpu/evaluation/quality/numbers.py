"""Numbers as they are read aloud in English, so that "25" and "twenty-five" compare as equal.

A recogniser writes what it hears in digits or in words as it likes. Both sides of a comparison go
through the same rules, so a rule has to be consistent rather than complete.
"""

from __future__ import annotations

import re

_SMALL = """
zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen
sixteen seventeen eighteen nineteen
""".split()
_TENS = "_ _ twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ("", "thousand", "million", "billion", "trillion")
_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_CURRENCIES = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent")}

_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}\b)")
_MONEY = re.compile(r"([$£€])(\d+)(?:\.(\d\d))?(?!\d)")
_CLOCK = re.compile(r"\b(\d{1,2}):(\d\d)\b")
_ORDINAL = re.compile(r"\b(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE)
_YEAR = re.compile(r"(?<![\d.,$£€:])(1[1-9]|20)(\d\d)(?![.,:]?\d)(?!st|nd|rd|th)")
_DECIMAL = re.compile(r"(\d+)\.(\d+)")
_INTEGER = re.compile(r"\d+")
_LARGEST_DIGITS = 3 * len(_SCALES)


def spell_numbers(text: str) -> str:
    """`text` with digits written as words: amounts, times, ordinals, years, decimals, integers.

    Four digits from 1100 to 2099 without a comma are read in pairs as years are ("nineteen ninety
    nine", "twenty twenty four", but "two thousand five"). More than 15 digits are read one by one.
    """
    text = _YEAR.sub(lambda found: f" {_year(int(found[1]), int(found[2]))} ", text)
    text = _THOUSANDS.sub("", text)
    text = _MONEY.sub(lambda found: _money(*found.groups()), text)
    text = _CLOCK.sub(lambda found: _clock(int(found[1]), int(found[2])), text)
    text = _ORDINAL.sub(lambda found: f" {_ordinal(found[1])} ", text)
    text = _DECIMAL.sub(
        lambda found: f" {_integer(found[1])} point {_digit_by_digit(found[2])} ", text
    )
    text = _INTEGER.sub(lambda found: f" {_integer(found[0])} ", text)
    return text.replace("%", " percent ")


def cardinal(number: int) -> str:
    """`number`, 0 to 10^15 - 1, in words without "and" or hyphens: "two hundred five"."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f" {_SMALL[number % 10]}" if number % 10 else "")
    if number < 1000:
        rest = f" {cardinal(number % 100)}" if number % 100 else ""
        return f"{_SMALL[number // 100]} hundred{rest}"
    words: list[str] = []
    for scale in _SCALES:
        number, group = divmod(number, 1000)
        if group:
            words.insert(0, f"{cardinal(group)} {scale}".strip())
    return " ".join(words)


def ordinal(number: int) -> str:
    """`number` as a rank: "twenty first"."""
    *before, last = cardinal(number).split()
    if last in _IRREGULAR_ORDINALS:
        last = _IRREGULAR_ORDINALS[last]
    else:
        last = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*before, last])


def _ordinal(digits: str) -> str:
    return ordinal(int(digits)) if len(digits) <= _LARGEST_DIGITS else _digit_by_digit(digits)


def _integer(digits: str) -> str:
    if len(digits) > _LARGEST_DIGITS or (digits[0] == "0" and len(digits) > 1):
        return _digit_by_digit(digits)
    return cardinal(int(digits))


def _digit_by_digit(digits: str) -> str:
    return " ".join(_SMALL[int(digit)] for digit in digits)


def _money(sign: str, whole: str, hundredths: str | None) -> str:
    unit, part = _CURRENCIES[sign]
    words = f"{_integer(whole)} {unit}{'' if whole == '1' else 's'}"
    if hundredths and int(hundredths):
        parts = part if int(hundredths) == 1 else {"penny": "pence"}.get(part, f"{part}s")
        words += f" and {cardinal(int(hundredths))} {parts}"
    return f" {words} "


def _clock(hour: int, minute: int) -> str:
    if minute == 0:
        return f" {cardinal(hour)} "
    return f" {cardinal(hour)} {'oh ' if minute < 10 else ''}{cardinal(minute)} "


def _year(century: int, rest: int) -> str:
    if century == 20 and rest < 10:
        return cardinal(2000 + rest)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"
