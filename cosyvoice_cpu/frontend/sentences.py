"""Cut a text into the pieces that are synthesized one after the other.

Sentences are found first, each with its closing quotes. Short ones are then gathered into pieces as
the original gathers them (60 to 80 units); a sentence that is too long for one piece is cut at its
pauses, else at blanks, else between two characters. Unlike the original's, the pieces are bounded,
and together they hold every character of the text except white space.

A unit is a character where Han or kana carry the sentence, a text id elsewhere: both about a
syllable, so a bound in units is a bound on the seconds of speech.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cosyvoice_cpu.frontend import writing_systems
from cosyvoice_cpu.frontend.sentence_ends import find_sentences

LONGEST = 120  # units in a piece
LONGEST_CHARACTERS = 400

_LINE_BREAK = re.compile(r"[^\S\n\r]*[\n\r\v\f\x85\u2028\u2029]\s*")

_MANY_BLANKS = re.compile(r"\s{3,}")
_REACH = 100  # characters; longer than any mark

CountTokens = Callable[[str], int]


def split_sentences(text: str, count_tokens: CountTokens, *, longest: int = LONGEST) -> list[str]:
    """Pieces of `text` in order, of at most `longest` units and 400 characters each.

    `count_tokens` gives the number of text ids of a string (`TextTokenizer.count`); it is asked
    about each sentence once and about parts of long ones, never about the whole text. Joined, the
    pieces are the text but for white space: blanks between pieces go, runs of blanks shrink, and a
    line break within a piece becomes a blank, or nothing between two Han characters. A text of
    white space has no piece. A piece without a letter or digit is left only if nothing is there
    that it could join. Marks such as `<|en|>` and `[breath]` stay whole, addresses where they fit.
    Source: CosyVoice cosyvoice/utils/frontend_utils.py, `split_paragraph`, for the gathering rule.
    """
    limits = _Limits.of(longest)
    text = _MANY_BLANKS.sub(_few_blanks, text)
    atoms = (
        atom for sentence in find_sentences(text) for atom in _fit(sentence, count_tokens, limits)
    )
    pieces = (_LINE_BREAK.sub(_blank_or_nothing, piece).strip() for piece in _gather(atoms, limits))
    return [piece for piece in pieces if piece]


@dataclass(frozen=True)
class _Limits:
    """In units; 120, 100, 80, 60 and 20 unless `longest` says otherwise."""

    longest: int  # of a piece
    sentence: int  # of a sentence that stays whole; leaves room for a scrap to join it
    target: int  # above it, a piece of more than `least` is closed
    least: int
    scrap: int  # below it, a piece joins its neighbour

    @classmethod
    def of(cls, longest: int) -> _Limits:
        return cls(
            longest=longest,
            sentence=max(1, longest * 5 // 6),
            target=max(1, longest * 2 // 3),
            least=longest // 2,
            scrap=longest // 6,
        )


@dataclass(frozen=True)
class _Atom:
    """A sentence, or a part of a long one, with the white space before it."""

    text: str
    units: int
    speaks: bool


def _fit(sentence: str, count_tokens: CountTokens, limits: _Limits) -> Iterator[_Atom]:
    """`sentence` as one atom, or its parts if it is too long to stay whole."""
    units_of = len if writing_systems.counts_in_characters(sentence) else count_tokens
    position = 0
    unbroken: _Spans | None = None
    while position < len(sentence):
        window = sentence[position : position + LONGEST_CHARACTERS]
        units = units_of(window)
        if position + len(window) == len(sentence) and units <= limits.sentence:
            yield _Atom(window, units, writing_systems.has_speech(window))
            return
        if unbroken is None:
            unbroken = _Spans.of(sentence, writing_systems.UNBROKEN)
        ideal = max(1, min(len(window) * limits.target // max(units, 1), len(window) * 7 // 8))
        if len(sentence) - position < 2 * ideal:
            ideal = max(1, (len(sentence) - position) // 2)  # two even parts, no short rest
        cut, part_units = _fitting_cut(sentence, position, ideal, unbroken, units_of, limits)
        if part_units > limits.longest:  # an address longer than a piece
            marks = _Spans.of(sentence, writing_systems.MARK)
            cut, part_units = _fitting_cut(sentence, position, ideal, marks, units_of, limits)
        part = sentence[position:cut]
        yield _Atom(part, part_units, writing_systems.has_speech(part))
        position = cut


@dataclass(frozen=True)
class _Spans:
    """Stretches of a sentence that are not cut."""

    starts: list[int]
    ends: list[int]

    @classmethod
    def of(cls, sentence: str, pattern: re.Pattern[str]) -> _Spans:
        found = list(pattern.finditer(sentence))
        return cls([m.start() for m in found], [m.end() for m in found])

    def hold(self, index: int) -> bool:
        """True if a cut before `index` would fall inside a stretch."""
        span = bisect_left(self.starts, index) - 1
        return span >= 0 and index < self.ends[span]


def _fitting_cut(
    sentence: str,
    start: int,
    ideal: int,
    kept: _Spans,
    units_of: CountTokens,
    limits: _Limits,
) -> tuple[int, int]:
    """A place behind `start` and the units up to it: within the limits unless `kept` forbids."""
    cut = _best_cut(sentence, start, ideal, kept)
    while (units := units_of(sentence[start:cut])) > limits.sentence and ideal > 1:
        ideal = max(1, min(ideal, cut - start) // 2)
        cut = _best_cut(sentence, start, ideal, kept)
    return cut, units


def _best_cut(sentence: str, start: int, ideal: int, unbroken: _Spans) -> int:
    """The best place near start + ideal: behind a pause, else a blank, else between characters."""
    aim = start + ideal
    low = start + max(1, ideal // 2)
    high = min(start + max(ideal * 5 // 4, ideal + 1), len(sentence))
    for pattern in (writing_systems.PAUSE, writing_systems.BLANK):
        ends = (found.end() for found in pattern.finditer(sentence, low - 1, high))
        places = [
            at
            for at in ends
            if low <= at < len(sentence)
            and not unbroken.hold(at)
            and writing_systems.may_cut(sentence, at)
        ]
        if places:
            return min(places, key=lambda at: abs(at - aim))
    near = [aim + step for distance in range(_REACH) for step in (-distance, distance)]
    near = [at for at in near if start < at < len(sentence) and not unbroken.hold(at)]
    whole = (at for at in near if writing_systems.may_cut(sentence, at))
    return next(whole, near[0] if near else min(aim, len(sentence)))


def _gather(atoms: Iterator[_Atom], limits: _Limits) -> list[str]:
    """Join atoms into pieces by the original's rule, and scraps to a neighbour."""
    pieces: list[_Atom] = []
    for atom in atoms:
        if pieces and _belongs(pieces[-1], atom, limits):
            pieces[-1] = _joined(pieces[-1], atom)
        else:
            pieces.append(atom)
    if len(pieces) > 1 and (pieces[-1].units < limits.scrap or not pieces[-1].speaks):
        both = _joined(pieces[-2], pieces[-1])
        if _within(both, limits.longest):
            pieces[-2:] = [both]
    return [piece.text for piece in pieces]


def _belongs(piece: _Atom, atom: _Atom, limits: _Limits) -> bool:
    both = _joined(piece, atom)
    if _within(both, limits.target):
        return True
    if piece.units < limits.scrap or not piece.speaks or not atom.speaks:
        return _within(both, limits.longest)
    return piece.units <= limits.least and _within(both, limits.sentence)


def _joined(piece: _Atom, atom: _Atom) -> _Atom:
    return _Atom(piece.text + atom.text, piece.units + atom.units, piece.speaks or atom.speaks)


def _within(piece: _Atom, units: int) -> bool:
    return piece.units <= units and len(piece.text) <= LONGEST_CHARACTERS


def _few_blanks(blanks: re.Match[str]) -> str:
    """A blank line, a line end or a blank: what `blanks` mean, whatever their number."""
    breaks = blanks[0].count("\n")
    return "\n\n" if breaks > 1 else "\n" if breaks else " "


def _blank_or_nothing(line_break: re.Match[str]) -> str:
    text, before, after = line_break.string, line_break.start() - 1, line_break.end()
    inside = before >= 0 and after < len(text)
    if inside and all(writing_systems.HAN_OR_KANA.match(text, index) for index in (before, after)):
        return ""
    return " "
