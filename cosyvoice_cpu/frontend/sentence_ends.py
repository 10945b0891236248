"""Where sentences end, in the scripts that mark it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from cosyvoice_cpu.frontend import writing_systems
from cosyvoice_cpu.frontend.abbreviations import ends_in_abbreviation

LONGEST = 500  # characters of what is taken for a sentence; real ones have fewer

_CUT = re.compile(rf"{writing_systems.PAUSE.pattern}|{writing_systems.BLANK.pattern}")
_CANDIDATE = re.compile(
    rf"(?P<unbroken>{writing_systems.UNBROKEN.pattern})"
    rf"|(?P<stop>[{''.join(sorted(writing_systems.STOPS))}])"
    r"|(?P<paragraph>\n[^\S\n]*\n\s*)"
)
_QUOTES = writing_systems.DOUBLE_QUOTES | writing_systems.EITHER_QUOTES | {"”", "’"}


def find_sentences(text: str) -> Iterator[str]:
    """Consecutive parts of `text`, each up to and with its stop and closing marks.

    Joined they are `text`; each but the first keeps the white space before it. Stops inside
    numbers, addresses, marks and abbreviations end nothing; a blank line ends a sentence.
    """
    start = position = quotes_seen = counted = 0
    while found := _CANDIDATE.search(text, position):
        position = found.end()
        if found["unbroken"]:
            continue
        if found["stop"]:
            stop = found.start()
            quotes_seen += sum(text.count(q, counted, stop) for q in writing_systems.DOUBLE_QUOTES)
            position = _end_of_stop(text, stop, quotes_seen % 2 == 1)
            quotes_seen += sum(text.count(q, stop, position) for q in writing_systems.DOUBLE_QUOTES)
            counted = position
            if not _ends_sentence(text, start, stop, position):
                continue
        else:
            quotes_seen, counted = 0, position  # a quotation left open ends with its paragraph
        yield text[start:position]
        start = position
    if start < len(text):
        yield text[start:]


def find_bounded_sentences(text: str) -> Iterator[str]:
    """`find_sentences`; what has no stop for long is cut at a pause or a blank, or anywhere."""
    for sentence in find_sentences(text):
        start = 0
        while len(sentence) - start > LONGEST:
            cuts = _CUT.finditer(sentence, start + LONGEST // 2, start + LONGEST)
            end = max((cut.end() for cut in cuts), default=start + LONGEST)
            yield sentence[start:end]
            start = end
        yield sentence[start:]


def _end_of_stop(text: str, stop: int, quoted: bool) -> int:
    """Index behind the run of stops at `stop` and the closing marks that belong to it."""
    end = stop + 1
    while end < len(text):
        character, following = text[end], text[end + 1 : end + 2]
        if character in writing_systems.STOPS or character in writing_systems.CLOSERS:
            end += 1
        elif character in writing_systems.DOUBLE_QUOTES and (quoted or not following.isalnum()):
            end += 1
            quoted = False
        elif character in writing_systems.EITHER_QUOTES and (
            not following or following.isspace() or following in writing_systems.CLOSERS
        ):
            end += 1
        elif character.isspace() and (
            (following == "." and text[end - 1] == ".") or (following and following in "»›")
        ):
            end += 2  # a spaced ellipsis; a French closing quote
        else:
            break
    return end


def _ends_sentence(text: str, start: int, stop: int, end: int) -> bool:
    """Whether the stop text[stop:end], of a sentence that began at `start`, ends it."""
    run = text[stop:end]
    if any(mark in writing_systems.WIDE_STOPS for mark in run):
        between_digits = text[stop - 1 : stop].isdigit() and text[end : end + 1].isdigit()
        return not (run == "：" and between_digits)  # 12：30
    if not writing_systems.may_follow_a_stop(text, end):
        return False
    ahead = text[end : end + 3].lstrip()[:1]  # runs of blanks are two characters at most
    if run[-1] in _QUOTES and ahead.islower():  # "Stop!" he cried
        return False
    return not (run == "." and ends_in_abbreviation(text, start, stop, ahead))
