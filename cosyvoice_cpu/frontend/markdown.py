"""Markdown and emoji to words: what marks a text up for the eye goes, the words stay.

Only what is clearly markup: `2*3*4`, `snake_case`, `#5` and `5 > 3` are words. Of a link the text
is kept, of a picture its description, of a table its cells, of code all of it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from cosyvoice_cpu.frontend.ssml import LINE_END

__all__ = ["fence_of", "plain_lines", "plain_spans"]

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})\s*[\w+#.-]*(?:\s[^`]*)?\Z")
_RULE = re.compile(r"\s{0,3}(?:(?:\*\s*){3,}|(?:-\s*){3,}|(?:_\s*){3,}|={3,}\s*)\Z")
_HEADING = re.compile(r"\s{0,3}#{1,6}\s+(.*?)(?:\s+#+)?\s*\Z")
_QUOTE = re.compile(r"\A\s{0,3}(?:>\s?)+(?=\s|[^\d\s=>])")
_BULLET = re.compile(r"\s*[-*+•‣◦▪●○·–]\s+(?:\[[ xX]\]\s+)?(?=\S)")
_NUMBERED = re.compile(r"\s*(?:\(?\d{1,3}[.)）]\s+|\d{1,3}、|[(（]\d{1,3}[)）])(?=\S)")
_DEFINITION = re.compile(r"\s{0,3}\[[^\[\]\n]{1,60}\]:\s+\S+(?:\s+[\"'(].{0,200}[\"')])?\s*\Z")
_TABLE_RULE = re.compile(r"\s*\|?\s*:?-{2,}:?\s*(?:\|\s*:?-{2,}:?\s*)*\|?\s*\Z")
_TABLE_ROW = re.compile(r"\s*\|.+\|\s*\Z")

_CODE = re.compile(r"(?P<ticks>`{1,3})(?P<code>[^`\n]{1,400})(?P=ticks)(?!`)")
_PICTURE = re.compile(r"!\[([^\[\]\n]{0,300})\]\([^()\s]{0,600}(?:\s+\"[^\"\n]{0,200}\")?\)")
_LINK = re.compile(
    r"(?<![!\w])\[((?:[^\[\]\n]|\[[^\[\]\n]{0,60}\]){1,300})\]"
    r"(?:\((?=[^\s()]*[/.#:@])[^()\s]{1,600}(?:\([^()\s]{0,80}\)[^()\s]{0,200})?"
    r"(?:\s+\"[^\"\n]{0,200}\")?\)|\[[^\[\]\n]{0,60}\])"
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]{1,600}|[^<>\s@]{1,80}@[^<>\s@]{1,200})>")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]{1,30}\]:?")
_ESCAPE = re.compile(r"\\([\\`*_{}\[\]()#+\-.!|~>])")
_EMPHASES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\\*])\*\*\*(?=[^\s*])([^*\n]{1,600}?)(?<=[^\s\\])\*\*\*(?!\*)",
        r"(?<!\\)\*\*(?=\S)((?:[^*\n]|\*(?!\*)){1,600}?)(?<=[^\s\\])\*\*",
        r"(?<![\\\w])__(?=\S)([^\n]{1,600}?)(?<=[^\s\\])__(?![\w.])",
        r"(?<!\\)~~(?=\S)([^~\n]{1,600}?)(?<=\S)~~",
        r"(?<![\\*A-Za-z0-9])\*(?=[^\s*])([^*\n]{1,600}?)(?<=[^\s\\*])\*(?![*A-Za-z0-9])",
        r"(?<![\\\w])_(?=[^\s_])([^_\n]{1,600}?)(?<=[^\s\\_])_(?!\w)",
    )
)
_KEYCAP = re.compile("([0-9#*])\ufe0f?\u20e3")
_EMOJI = re.compile(
    "[^\\S\n]?(?:"
    "[\U0001f1e6-\U0001f1ff]{2}"
    "|[\U0001f000-\U0001f0ff\U0001f18e\U0001f191-\U0001f19a\U0001f201-\U0001f265"
    "\U0001f300-\U0001faff]"
    "|[\u231a\u231b\u23e9-\u23f3\u25fd\u25fe\u2614\u2615\u2648-\u2653\u267f\u2693\u26a1\u26aa\u26ab"
    "\u26bd\u26be\u26c4\u26c5\u26ce\u26d4\u26ea\u26f2\u26f3\u26f5\u26fa\u26fd\u2705\u270a\u270b"
    "\u2728\u274c\u274e\u2753-\u2755\u2757\u2795-\u2797\u27b0\u27bf\u2b1b\u2b1c\u2b50\u2b55]"
    "|[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa\u2328\u23cf\u24c2\u25aa-\u25fb\u2600-\u27bf"
    "\u2934\u2935\u2b05-\u2b07\u3030\u303d\u3297\u3299]\ufe0f"
    ")(?:[\ufe0e\ufe0f\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f\u20e3]"
    "|(?<=\u200d)[\u2600-\u27bf\U0001f000-\U0001faff])*"
)


def fence_of(line: str) -> str | None:
    """The fence that opens or closes a stretch of code in `line`, None for another line."""
    found = _FENCE.match(line)
    return found[1] if found else None


def plain_lines(lines: Sequence[str]) -> list[str]:
    """Lines without the marks at their beginning; lists, headings and rows end with U+2029."""
    plain: list[str] = []
    table = any(_TABLE_RULE.match(line) and "|" in line for line in lines)
    for raw in lines:
        line = _QUOTE.sub("", raw, count=1)
        if _RULE.match(line) or (table and _TABLE_RULE.match(line)) or fence_of(line):
            if plain and not plain[-1].endswith(LINE_END):
                plain[-1] += LINE_END  # the line above is a heading, or a rule follows it
        elif _DEFINITION.match(line):
            continue
        elif heading := _HEADING.match(line):
            plain.append(heading[1] + LINE_END)
        elif table and (_TABLE_ROW.match(line) or "|" in line):
            plain.append(_cells(line) + LINE_END)
        elif (bullet := _BULLET.match(line)) or _NUMBERED.match(line):
            if plain and not plain[-1].endswith(LINE_END):
                plain[-1] += LINE_END
            plain.append(line[bullet.end() :] if bullet else line.lstrip())
        else:
            plain.append(line)
    return plain


def plain_spans(text: str, known: Collection[str]) -> str:
    """`text` without emphasis, links, pictures, code ticks and emoji; `known` marks stay."""
    if "](" in text or "][" in text:
        text = _PICTURE.sub(r"\1", text)
        text = _LINK.sub(lambda found: _link(found, known), text)
    if "<" in text:
        text = _AUTOLINK.sub(lambda found: found[1].removeprefix("mailto:"), text)
    if "[^" in text:
        text = _FOOTNOTE.sub("", text)
    parts = _CODE.split(text) if "`" in text else [text]  # text, ticks, code, text, ...
    parts[::3] = [_without_emphasis(part) for part in parts[::3]]
    parts[1::3] = [""] * len(parts[1::3])
    return _EMOJI.sub("", _KEYCAP.sub(r"\1", "".join(parts)))


def _without_emphasis(text: str) -> str:
    if "*" in text or "_" in text or "~~" in text:
        for emphasis in _EMPHASES:
            text = emphasis.sub(_words, text)
    return _ESCAPE.sub(r"\1", text) if "\\" in text else text


def _words(found: re.Match[str]) -> str:
    """What is emphasized; a product of numbers, 2**3**4, is none."""
    before = found.string[found.start() - 1 : found.start()]
    after = found.string[found.end() : found.end() + 1]
    return found[0] if before.isdigit() and after.isdigit() else found[1]


def _link(found: re.Match[str], known: Collection[str]) -> str:
    return found[0] if f"[{found[1]}]" in known else found[1]


def _cells(row: str) -> str:
    cells = [cell.strip() for cell in row.strip().strip("|").split("|")]
    return ", ".join(cell for cell in cells if cell)
