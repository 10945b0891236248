"""English number words, in the grammar's style: no hyphens, "and" behind hundreds."""

from __future__ import annotations

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_GROUPS = ("", "thousand", "million", "billion", "trillion", "quadrillion")
_LARGEST = 10**18


def cardinal(value: int) -> str:
    """12345 as "twelve thousand three hundred and forty five"; digit by digit from 10^18 on."""
    if value >= _LARGEST:
        return digits(str(value))
    if value < 1000:
        return _below_thousand(value)
    words: list[str] = []
    groups: list[int] = []
    while value:
        value, group = divmod(value, 1000)
        groups.append(group)
    for power in range(len(groups) - 1, -1, -1):
        if groups[power]:
            small = power == 0 and groups[0] < 100
            words.append("and " * small + _below_thousand(groups[power]))
            words.append(_GROUPS[power])
    return " ".join(word for word in words if word)


def number(written: str) -> str:
    """ "12", "1.50" without commas: digits behind the point one by one."""
    whole, _, part = written.partition(".")
    words = cardinal(int(whole or "0"))
    return f"{words} point {digits(part)}" if part else words


def digits(written: str) -> str:
    """Digit by digit."""
    return " ".join(_ONES[int(digit)] for digit in written)


def year(value: int) -> str:
    """1905 as "nineteen oh five", 2005 as "two thousand five", 1990 as "nineteen ninety"."""
    century, rest = divmod(value, 100)
    if century % 10 == 0 and rest < 10:
        return f"{cardinal(century // 10)} thousand {cardinal(rest)}".removesuffix(" zero")
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' * (rest < 10)}{cardinal(rest)}"


def plural(word: str) -> str:
    """Of a unit or a number word: "meters", "frames per second", "nineties"."""
    first, per, rest = word.partition(" per ")
    if first.endswith("y"):
        first = first[:-1] + "ies"
    elif not first.endswith("hertz"):
        first += "es" if first.endswith(("x", "ch")) else "s"
    return first + per + rest


def _below_thousand(value: int) -> str:
    hundreds, rest = divmod(value, 100)
    words = [f"{_ONES[hundreds]} hundred"] if hundreds else []
    if rest:
        words += ["and"] if hundreds else []
        words.append(_ONES[rest] if rest < 20 else _TENS[rest // 10 - 2])
        if rest >= 20 and rest % 10:
            words.append(_ONES[rest % 10])
    return " ".join(words) or "zero"
