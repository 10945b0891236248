"""Full stops that do not end a sentence.

Leaving a true end unseen costs little, since short sentences are merged anyway; cutting "Dr."
from "Smith" makes an audible pause. So the doubtful cases count as abbreviations.
"""

from __future__ import annotations

import re

_NEVER_LAST = frozenset(
    """
    mr mrs ms mx dr prof rev hon gen col maj capt lt cmdr sgt sen rep gov pres st mt ft vs cf
    approx dept est ave blvd messrs mme mlle sra srta hr fr nr bzw ca evtl ggf sog vgl
    """.split()
)
_LAST_BEFORE_A_CAPITAL = frozenset("etc inc ltd co corp jr sr bros al usw".split())
_BEFORE_A_NUMBER = frozenset(
    """
    no nos p pp fig figs vol vols ch sec art eq ex par para op ver v jan feb mar apr jun jul aug
    sep sept oct nov dec
    """.split()
)
_HALF_DAYS = frozenset({"a.m", "p.m"})
_WORD = re.compile(r"[\w.]*\Z")
_DOTTED = re.compile(r"(?:[^\W\d_]\.)+[^\W\d_]")  # U.S, e.g, z.B
_LONGEST_WORD = 24
_LONGEST_LIST_NUMBER = 3


def ends_in_abbreviation(text: str, start: int, stop: int, ahead: str) -> bool:
    """True if the full stop text[stop] belongs to an abbreviation, an initial or a list number.

    `start` is where the sentence begins and `ahead` the first character behind the blanks that
    follow, or "".
    """
    found = _WORD.search(text, max(start, stop - _LONGEST_WORD), stop)
    word = found[0] if found else ""
    lower = word.lower()
    if word.isdigit():  # "1. First", as opposed to "in 1984. Then"
        opens = not text[start : stop - len(word)].strip()
        return opens and len(word) <= _LONGEST_LIST_NUMBER
    if _DOTTED.fullmatch(word):
        return not (lower in _HALF_DAYS and ahead.isupper())
    if lower in _BEFORE_A_NUMBER and not (len(word) == 1 and word.isupper()):
        return ahead.isdigit()
    if len(word) == 1:
        return word.isupper()
    if lower in _LAST_BEFORE_A_CAPITAL:
        return ahead.islower() or ahead.isdigit()
    return lower in _NEVER_LAST and ahead != ""
