"""A user's lexicon: how words are to be read.

One word a line, then a tab, `=`, `,` or blanks, then its reading; `#` begins a comment.

    CosyVoice   Cosy Voice                   text
    给予        jǐ yǔ                        pinyin; ji3 yu3 is the same
    tomato      T AH0 M AA1 T OW2            ARPAbet
    重庆        [ch][óng]庆                  the marks of the model, as they are

Pinyin and ARPAbet become the marks that Fun-CosyVoice3's tokenizer has for them. A word matches as
it is written, else in any case; a Latin word only as a whole word.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from cosyvoice_cpu.errors import TextError
from cosyvoice_cpu.frontend.marks import MarkTable
from cosyvoice_cpu.frontend.writing_systems import MARK

__all__ = ["Lexicon"]

LARGEST_FILE = 4 << 20  # bytes

_SEPARATOR = re.compile(r"\s*\t\s*|\s*=\s*|\s*[,，]\s*|\s{2,}")
_MARK = re.compile(r"\[[^\[\]\s]{1,24}\]|<\|?[^<>\s|]{1,40}\|?>")
_ARPABET = re.compile(r"[A-Z]{1,2}[0-2]?")
_INITIALS = re.compile(r"zh|ch|sh|[bpmfdtnlgkhjqxrzcsyw]")
_SYLLABLE = re.compile(r"[a-zü]{1,6}[1-5]|[a-zāáǎàēéěèīíǐìōóǒòūúǔùǖǘǚǜü]{1,6}")
_TONED = {
    "a": "āáǎà", "e": "ēéěè", "i": "īíǐì", "o": "ōóǒò", "u": "ūúǔù", "ü": "ǖǘǚǜ",
}  # fmt: skip
_HAN = re.compile("[\u3400-\u9fff]")


class Lexicon:
    """Words and their readings, ready to be put into sentences."""

    def __init__(self, readings: Mapping[str, str], marks: Collection[str] = ()) -> None:
        """`readings` from word to reading, `marks` those of the model's tokenizer.

        Raises: TextError for an empty word or reading, or a mark that the model doesn't have.
        """
        table = MarkTable(marks)
        self._readings = {
            word: _reading(word, reading, table, f"the lexicon's word {word!r}")
            for word, reading in readings.items()
        }
        self._folded = {word.casefold(): reading for word, reading in self._readings.items()}
        words = sorted(self._readings, key=len, reverse=True)
        either = "|".join(map(_pattern, words))
        self._words = (
            re.compile(rf"{MARK.pattern}|https?://\S+|{either}", re.IGNORECASE) if words else None
        )

    @classmethod
    def load(cls, path: str | Path, marks: Collection[str] = ()) -> Lexicon:
        """The lexicon in a UTF-8 file. Raises: TextError naming file and line."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                content = file.read(LARGEST_FILE + 1)
        except OSError as error:
            raise TextError(f"{path} can't be read ({error.strerror})", "check the name") from error
        if len(content) > LARGEST_FILE:
            raise TextError(f"{path} exceeds {LARGEST_FILE >> 20} MB", "keep the words you need")
        try:
            lines = content.decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise TextError(f"{path} is not UTF-8", "save it as UTF-8") from error
        table = MarkTable(marks)
        readings: dict[str, str] = {}
        for number, line in enumerate(lines, start=1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            where = f"{path}, line {number}"
            word, reading = _entry(line.strip(), where)
            if word in readings:
                raise TextError(f"{where}: {word!r} has a reading already", "keep one of them")
            readings[word] = _reading(word, reading, table, where)
        return cls(readings, marks)

    def apply(self, sentence: str) -> str:
        """`sentence` with the readings in the places of their words."""
        if self._words is None:
            return sentence
        return self._words.sub(self._read, sentence)

    def _read(self, found: re.Match[str]) -> str:
        word = found[0]
        if word in self._readings:
            return self._readings[word]
        return self._folded.get(word.casefold(), word)


def _entry(line: str, where: str) -> tuple[str, str]:
    parts = _SEPARATOR.split(line, maxsplit=1)
    if len(parts) < 2:
        parts = line.split(maxsplit=1)
    if len(parts) < 2 or not parts[0] or not parts[1].strip():
        raise TextError(f"{where}: expected a word and its reading", "separate the two by a tab")
    return parts[0], parts[1].strip()


def _reading(word: str, reading: str, table: MarkTable, where: str) -> str:
    """The reading as text with the model's marks."""
    if not word.strip() or not reading.strip():
        raise TextError(f"{where}: the word or its reading is empty", "give both")
    for mark in _MARK.findall(reading):
        if table.known and mark not in table.known:
            nearest = table.nearest(mark)
            raise TextError(
                f"{where}: {mark} is no mark of this model",
                f"the nearest is {nearest}" if nearest else "see docs/text.md for the marks",
            )
    if "[" in reading or not table.known:
        return reading
    parts = reading.split()
    if all(map(_ARPABET.fullmatch, parts)) and any(part[-1].isdigit() for part in parts):
        return _marks_of(parts, table, where, "an ARPAbet phone")
    if _HAN.search(word) and all(map(_SYLLABLE.fullmatch, parts)):
        pieces = [piece for part in parts for piece in _pinyin(part, table)]
        return _marks_of(pieces, table, where, "a part of a pinyin syllable")
    return reading


def _marks_of(parts: list[str], table: MarkTable, where: str, kind: str) -> str:
    missing = [part for part in parts if f"[{part}]" not in table.known]
    if missing:
        raise TextError(
            f"{where}: {missing[0]!r} is not {kind} that this model has",
            "give the reading as text, or as other marks",
        )
    return "".join(f"[{part}]" for part in parts)


def _pinyin(syllable: str, table: MarkTable) -> list[str]:
    """Initial and toned final: ji3 as j, ǐ. A syllable without initial is a final alone."""
    toned = _with_tone(syllable)
    initial = _INITIALS.match(toned)
    if initial is None or initial.end() == len(toned):
        return [toned]
    final = toned[initial.end() :]
    if f"[{final}]" not in table.known:  # the tokenizer spells lüè as l, vè
        final = final.replace("üè", "vè")
    return [initial[0], final]


def _with_tone(syllable: str) -> str:
    """`ji3` as `jǐ`: the mark stands on a, e or o, else on the last vowel."""
    tone = syllable[-1]
    if not tone.isdigit():
        return syllable
    letters = syllable[:-1].replace("v", "ü")
    if tone == "5":
        return letters
    at = next((letters.index(vowel) for vowel in "aeo" if vowel in letters), -1)
    if at < 0:
        at = max((letters.rfind(vowel) for vowel in "iuü"), default=-1)
    if at < 0:
        return letters
    return letters[:at] + _TONED[letters[at]][int(tone) - 1] + letters[at + 1 :]


def _pattern(word: str) -> str:
    """`word` literally, and as a whole word at its Latin ends."""
    before = r"(?<![A-Za-z0-9\u00c0-\u024f])" if word[0].isascii() and word[0].isalnum() else ""
    after = r"(?![A-Za-z0-9\u00c0-\u024f])" if word[-1].isascii() and word[-1].isalnum() else ""
    return before + re.escape(word) + after
