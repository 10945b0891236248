"""Cut a text into the segments that are synthesized one after the other.

Sentences are found first, each with its closing quotes. Short ones are then merged into segments as
the original merges them (60 to 80 long); a sentence that is too long for one segment is cut at its
pauses, else at blanks, else between two characters. Unlike the original's, the segments are
bounded, and together they hold every character of the text except white space.

Length is counted in characters where Han or kana carry the sentence, in text ids elsewhere: both
are about syllables, so a bound on the length is a bound on the seconds of speech.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from cosyvoice_cpu.frontend import writing_systems
from cosyvoice_cpu.frontend.sentence_ends import find_sentences

LONGEST = 120  # length of a segment
LONGEST_CHARACTERS = 400

_LINE_BREAK = re.compile(r"[^\S\n\r]*[\n\r\v\f\x85\u2028\u2029]\s*")

_MANY_BLANKS = re.compile(r"\s{3,}")
_REACH = 100  # characters; longer than any mark

CountTokens = Callable[[str], int]


def split_sentences(text: str, count_tokens: CountTokens, *, longest: int = LONGEST) -> list[str]:
    """Segments of `text` in order, each of at most the length `longest` and 400 characters.

    `count_tokens` gives the number of text ids of a string (`TextTokenizer.count`); it is asked
    about each sentence once and about parts of long ones, never about the whole text. Joined, the
    segments are the text but for white space: blanks between segments go, runs of blanks shrink,
    and a line break within a segment becomes a blank, or nothing between two Han characters. A text
    of white space has no segment. A segment without a letter or digit is left only if nothing is
    there that it could join. Marks such as `<|en|>` and `[breath]` stay whole, addresses where they
    fit.
    Source: CosyVoice cosyvoice/utils/frontend_utils.py, `split_paragraph`, for the rule of merging.
    """
    sentences = find_sentences(few_blanks(text))
    return list(merge_sentences(sentences, count_tokens, longest=longest))


def merge_sentences(
    sentences: Iterable[str],
    count_tokens: CountTokens,
    *,
    longest: int = LONGEST,
    soon: bool = False,
) -> Iterator[str]:
    """The segments of `split_sentences` for a text that comes sentence by sentence.

    A segment is yielded as soon as no later sentence can change it: two segments behind. With
    `soon` the first segment of a text longer than `longest` ends with its first sentence of a
    length worth speaking alone, so that its audio is there early.
    """
    lengths = _Lengths.of(longest)
    parts = (part for sentence in sentences for part in _fit(sentence, count_tokens, lengths))
    for segment in _merge(_opening_first(parts, lengths) if soon else parts, lengths):
        if text := _LINE_BREAK.sub(_blank_or_nothing, segment).strip():
            yield text


@dataclass(frozen=True)
class _Lengths:
    """Bounds: 120, 100, 80, 60 and 20 unless `longest` says otherwise."""

    longest: int  # of a segment
    sentence: int  # of a sentence that stays whole; leaves room for a fragment to join it
    target: int  # above it, a segment of more than `least` is closed
    least: int
    fragment: int  # below it, a segment joins its neighbour

    @classmethod
    def of(cls, longest: int) -> _Lengths:
        return cls(
            longest=longest,
            sentence=max(1, longest * 5 // 6),
            target=max(1, longest * 2 // 3),
            least=longest // 2,
            fragment=longest // 6,
        )


@dataclass(frozen=True)
class _Segment:
    """Sentences, or a part of a long one, with the white space before."""

    text: str
    length: int
    speaks: bool
    ends: bool = False  # nothing joins it from behind


def _opening_first(parts: Iterator[_Segment], lengths: _Lengths) -> Iterator[_Segment]:
    """The same parts; of a long text the first few are one segment, which is closed."""
    opening: list[_Segment] = []
    for part in parts:
        opening.append(part)
        if sum(known.length for known in opening) > lengths.longest:
            break
    else:
        yield from opening
        return
    first = opening.pop(0)
    while (first.length < lengths.fragment // 2 or not first.speaks) and opening:
        both = _joined(first, opening[0])
        if not _within(both, lengths.longest):
            break
        first = both
        del opening[0]
    yield replace(first, ends=True)
    yield from opening
    yield from parts


def _fit(sentence: str, count_tokens: CountTokens, lengths: _Lengths) -> Iterator[_Segment]:
    """`sentence` as one segment, or as parts if it is too long to stay whole."""
    length_of = len if writing_systems.counts_in_characters(sentence) else count_tokens
    position = 0
    unbroken: _Spans | None = None
    while position < len(sentence):
        window = sentence[position : position + LONGEST_CHARACTERS]
        length = length_of(window)
        if position + len(window) == len(sentence) and length <= lengths.sentence:
            yield _Segment(window, length, writing_systems.has_speech(window))
            return
        if unbroken is None:
            unbroken = _Spans.of(sentence, writing_systems.UNBROKEN)
        ideal = max(1, min(len(window) * lengths.target // max(length, 1), len(window) * 7 // 8))
        if len(sentence) - position < 2 * ideal:
            ideal = max(1, (len(sentence) - position) // 2)  # two even parts, no short rest
        cut, part_length = _fitting_cut(sentence, position, ideal, unbroken, length_of, lengths)
        if part_length > lengths.longest:  # an address longer than a segment
            marks = _Spans.of(sentence, writing_systems.MARK)
            cut, part_length = _fitting_cut(sentence, position, ideal, marks, length_of, lengths)
        part = sentence[position:cut]
        yield _Segment(part, part_length, writing_systems.has_speech(part))
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
    length_of: CountTokens,
    lengths: _Lengths,
) -> tuple[int, int]:
    """A place behind `start` and the length up to it: within the bounds unless `kept` forbids."""
    cut = _best_cut(sentence, start, ideal, kept)
    while (length := length_of(sentence[start:cut])) > lengths.sentence and ideal > 1:
        ideal = max(1, min(ideal, cut - start) // 2)
        cut = _best_cut(sentence, start, ideal, kept)
    return cut, length


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


def _merge(parts: Iterable[_Segment], lengths: _Lengths) -> Iterator[str]:
    """Join parts into segments by the original's rule, and fragments to a neighbour."""
    held: list[_Segment] = []  # the last two: a fragment at the end joins the one before
    for part in parts:
        if held and _belongs(held[-1], part, lengths):
            held[-1] = _joined(held[-1], part)
            continue
        if len(held) == 2:
            yield held.pop(0).text
        held.append(part)
    if len(held) == 2 and (held[-1].length < lengths.fragment or not held[-1].speaks):
        both = _joined(*held)
        if _within(both, lengths.longest):
            held = [both]
    yield from (segment.text for segment in held)


def _belongs(segment: _Segment, part: _Segment, lengths: _Lengths) -> bool:
    if segment.ends:
        return False
    both = _joined(segment, part)
    if _within(both, lengths.target):
        return True
    if segment.length < lengths.fragment or not segment.speaks or not part.speaks:
        return _within(both, lengths.longest)
    return segment.length <= lengths.least and _within(both, lengths.sentence)


def _joined(segment: _Segment, part: _Segment) -> _Segment:
    return _Segment(
        segment.text + part.text, segment.length + part.length, segment.speaks or part.speaks
    )


def _within(segment: _Segment, length: int) -> bool:
    return segment.length <= length and len(segment.text) <= LONGEST_CHARACTERS


def few_blanks(text: str) -> str:
    """`text` with long runs of white space shortened, as `find_sentences` needs it."""
    return _MANY_BLANKS.sub(_fewer, text)


def _fewer(blanks: re.Match[str]) -> str:
    """A blank line, a line end or a blank: what `blanks` mean, whatever their number."""
    breaks = blanks[0].count("\n")
    return "\n\n" if breaks > 1 else "\n" if breaks else " "


def _blank_or_nothing(line_break: re.Match[str]) -> str:
    text, before, after = line_break.string, line_break.start() - 1, line_break.end()
    inside = before >= 0 and after < len(text)
    if inside and all(writing_systems.HAN_OR_KANA.match(text, index) for index in (before, after)):
        return ""
    return " "
