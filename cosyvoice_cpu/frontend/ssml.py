"""Tags of SSML and HTML, and pauses: `<break time="1s"/>`, `[pause 500ms]`, `&amp;`.

A tag's words stay; what it asks for is done where that is a pause, another reading
(`<sub alias="...">`) or a line's end, and is otherwise named once. Tags that the model's tokenizer
knows are not looked at, and what is no tag of either language is left to the marks.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Collection, Iterator

__all__ = ["LINE_END", "pause_mark", "plain_tags", "split_at_pauses"]

LINE_END = "\u2029"  # a line ends here, whatever the width of the text
LONGEST_PAUSE = 60.0  # seconds

_SSML = frozenset(
    "pause"
    " speak voice prosody emphasis say-as phoneme sub audio break p s w token mark lang desc meta"
    " metadata lexicon lookup amazon:effect amazon:domain mstts:express-as google:style par seq"
    " media".split()
)
_HTML = frozenset(
    "a abbr address article aside b big blockquote body br caption center cite code dd del details"
    " dfn div dl dt em figcaption figure font footer h1 h2 h3 h4 h5 h6 head header hr html i img"
    " ins kbd li main nav ol pre q samp section small span strike strong sub summary sup table"
    " tbody td tfoot th thead title tr tt u ul var".split()
)
_ENDS_LINE = frozenset(
    "p s div br hr li ul ol dl dt dd h1 h2 h3 h4 h5 h6 tr table blockquote pre title article"
    " section header footer caption figure figcaption".split()
)
_HAS_NO_EFFECT = frozenset(
    "voice prosody emphasis say-as phoneme audio lang amazon:effect amazon:domain"
    " mstts:express-as google:style".split()
)
_STRENGTHS = {
    "none": 0.0,
    "x-weak": 0.1,
    "weak": 0.25,
    "medium": 0.5,
    "strong": 1.0,
    "x-strong": 1.5,
}

_TAG = re.compile(
    r"<(?P<close>/?)(?P<name>[A-Za-z][A-Za-z0-9:-]{0,30})"
    r"(?P<attributes>(?:\s[^<>]{0,400})?)\s*/?>"
)
_OTHER = re.compile(r"<!--.{0,4000}?-->|<\?.{0,400}?\?>|<!DOCTYPE[^<>]{0,400}>", re.DOTALL)
_SUBSTITUTE = re.compile(
    r"<sub\s+alias\s*=\s*(?P<quote>[\"'])(?P<alias>.*?)(?P=quote)\s*>[^<>]{0,400}</sub>", re.DOTALL
)
_TIME = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)\s*(?P<unit>ms|s|sec|seconds?)?", re.IGNORECASE)
_PAUSE = re.compile(
    rf"[\[［<]\s*(?:(?:pause|break|silence|停顿|暂停)\s*[:=：]?\s*(?P<time>{_TIME.pattern})|pause)"
    r"\s*/?\s*[\]］>]",
    re.IGNORECASE,
)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_CANONICAL = re.compile(r"\s*\[pause (\d{1,5})ms\]")

Note = Callable[[str], None]


def plain_tags(text: str, known: Collection[str], note: Note) -> str:
    """`text` without tags: pauses as `[pause 500ms]`, ends of lines as U+2029, entities as letters.

    `known` are the tokenizer's marks, which stay. `note` is told what has no effect.
    """
    text = _PAUSE.sub(lambda found: _pause(found, note), text)
    if "<" in text:
        text = _SUBSTITUTE.sub(lambda found: found["alias"], _OTHER.sub("", text))
        text = _TAG.sub(lambda found: _tag(found, known, note), text)
    if "&" in text:
        text = _ENTITY.sub(_entity, text)
    return text


def split_at_pauses(text: str) -> Iterator[str | float]:
    """The words of `text` and, between them, the seconds of each pause."""
    parts = _CANONICAL.split(text)
    for words, milliseconds in zip(parts[::2], [*parts[1::2], ""], strict=True):
        if words.strip():
            yield words
        if milliseconds and int(milliseconds):
            yield int(milliseconds) / 1000


def pause_mark(seconds: float) -> str:
    """How a pause is written: `[pause 500ms]`."""
    return f"[pause {round(1000 * seconds)}ms]"


def _tag(found: re.Match[str], known: Collection[str], note: Note) -> str:
    name = found["name"].lower()
    if (mark := f"<{found['close']}{name}>") in known:
        return mark  # <Strong > as well
    if name not in _SSML | _HTML:
        return found[0]
    if name in ("break", "pause"):
        return "" if found["close"] else _break(found["attributes"], note)
    if name in _HAS_NO_EFFECT and not found["close"]:
        note(f"<{name}> has no effect here; its words are spoken")
    return LINE_END if name in _ENDS_LINE else ""


def _break(attributes: str, note: Note) -> str:
    time = re.search(r"\btime\s*=\s*[\"']?\s*\+?([^\"'\s/>]+)", attributes)
    if time is not None:
        found = _TIME.fullmatch(time[1])
        if found is None:
            note(f"<break time={time[1]!r}> is no time such as 500ms or 1s; 0.5 s is taken")
            return _written(0.5, note)
        return _written(_seconds(found), note)
    strength = re.search(r"\bstrength\s*=\s*[\"']?([a-z-]+)", attributes)
    return _written(_STRENGTHS.get(strength[1] if strength else "medium", 0.5), note)


def _pause(found: re.Match[str], note: Note) -> str:
    return _written(_seconds(found) if found["time"] else 0.5, note)


def _seconds(found: re.Match[str]) -> float:
    """Of a number with its unit; a bare number counts milliseconds from 20 on, else seconds."""
    number, unit = float(found["number"]), (found["unit"] or "").lower()
    in_milliseconds = unit == "ms" or (not unit and number >= 20)
    return number / 1000 if in_milliseconds else number


def _written(seconds: float, note: Note) -> str:
    if seconds > LONGEST_PAUSE:
        note(f"a pause of {seconds:g} s is shortened to {LONGEST_PAUSE:g} s")
    return f" {pause_mark(min(seconds, LONGEST_PAUSE))}"


def _entity(found: re.Match[str]) -> str:
    character = html.unescape(found[0])
    printable = character.isprintable() or character.isspace()
    return character if printable and "\x00" not in character else found[0]
