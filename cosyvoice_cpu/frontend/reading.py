"""The front end's one pass: a text as it was typed becomes the sentences that are spoken.

    text ── blocks ── tags, Markdown ── paragraphs ── language ── pauses ── sentences
         at blank lines              wrapped lines joined           lexicon, then numbers

A text is read as it is spoken, a block and then a sentence at a time, so that a long one is heard
as soon as a short one. What is noticed on the way (a mark that the model doesn't know, numbers that
no grammar covers) comes once each, before the sentence that it is about.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from cosyvoice_cpu.frontend.grammars import GRAMMARS, normalizer_installed
from cosyvoice_cpu.frontend.language import language_of, language_of_sentence
from cosyvoice_cpu.frontend.lexicon import Lexicon
from cosyvoice_cpu.frontend.markdown import fence_of, plain_lines, plain_spans
from cosyvoice_cpu.frontend.marks import CONTROL, MarkTable
from cosyvoice_cpu.frontend.normalizer import INSTALL, spell_out
from cosyvoice_cpu.frontend.paragraphs import blocks, joined_lines, with_stop
from cosyvoice_cpu.frontend.sentence_ends import find_bounded_sentences, find_sentences
from cosyvoice_cpu.frontend.sentences import few_blanks
from cosyvoice_cpu.frontend.ssml import LINE_END, plain_tags, split_at_pauses
from cosyvoice_cpu.frontend.writing_systems import MARK, has_speech

_MOST_WAITING = 50  # paragraphs without a language at a text's beginning
_MOST_NOTES = 40

__all__ = ["Item", "Note", "Pause", "Reader", "ReadingOptions", "Sentence", "read_plainly"]

_LETTER = re.compile(r"[^\W\d_]")
_DIGIT = re.compile(r"\d")
_KANJI = re.compile("[\u4e00-\u9fff]")
# U+2019 is the typesetters' apostrophe: within a word, and before '90s and 'tis. Behind a final s
# (the dogs' bowls) it is one where no quotation is open that it could close.
_APOSTROPHE = re.compile(
    "(?<=[^\\W\\d_])[\u2019\uff07](?=[^\\W\\d_])"
    "|(?<![^\\s(\u201c])\u2019(?=\\d0s\\b|(?:tis|twas|em|cause)\\b)|\u02bc"
)
_FINAL_APOSTROPHE = re.compile("(?<=s)\u2019(?=\\s)")


@dataclass(frozen=True)
class Sentence:
    """A sentence as the model gets it, with the white space before it."""

    text: str


@dataclass(frozen=True)
class Pause:
    """Silence."""

    seconds: float


@dataclass(frozen=True)
class Note:
    """A line about the text that comes next, for whoever typed it."""

    text: str


Item = Sentence | Pause | Note


@dataclass(frozen=True)
class ReadingOptions:
    """How a text is read."""

    language: str | None = None  # None: by evidence, paragraph by paragraph
    normalize: bool = True  # write out numbers
    markup: bool = True  # Markdown, tags and pauses are markup; False keeps the text as it is
    lexicon: Lexicon | None = None


class Reader:
    """Reads one text: iterate over `items` once."""

    def __init__(self, marks: MarkTable, options: ReadingOptions) -> None:
        self._marks, self._options = marks, options
        self._told: set[str] = set()
        self._notes: list[str] = []

    def items(self, text: str) -> Iterator[Item]:
        """Sentences, pauses and notes of `text` in order, each as soon as it is known."""
        markup = self._options.markup
        before = ""  # white space between this sentence and the last
        for paragraph, language in self._with_languages(self._paragraphs(text)):
            for part in split_at_pauses(paragraph) if markup else (paragraph,):
                if isinstance(part, float):
                    yield from self._new_notes()
                    yield Pause(part)
                    continue
                for mark in self._marks.unknown(part):
                    self._note(self._marks.warning(mark))
                words = CONTROL.sub(self._known_or_nothing, part) if markup else part
                for sentence in find_bounded_sentences(words):
                    spoken = self._spoken(sentence, language)
                    yield from self._new_notes()
                    yield Sentence(before * (not spoken[:1].isspace()) + spoken)
                    before = ""
                before = " "
            before = "\n"
        yield from self._new_notes()

    def _paragraphs(self, text: str) -> Iterator[str]:
        """Each block without markup, all but the last ended by a stop; or `text` as it is."""
        if not self._options.markup:
            yield few_blanks(text)
            return
        held = ""
        for lines, is_code in _without_fences(blocks(text)):
            if paragraph := self._plain(lines, is_code):
                if held:
                    yield with_stop(held)
                held = paragraph
        if held:
            yield held

    def _plain(self, lines: list[str], is_code: bool) -> str:
        """The words of a block, one line for what is spoken in one breath."""
        if is_code:
            stretches = [[line] for line in lines]
        else:
            known = self._marks.known
            tagless = plain_tags("\n".join(lines), known, self._note)
            plain = plain_spans("\n".join(plain_lines(tagless.split("\n"))), known)
            stretches = [stretch.split("\n") for stretch in plain.split(LINE_END)]
        parts = ["\n".join(joined) for part in stretches if (joined := joined_lines(part))]
        parts[:-1] = [with_stop(part) for part in parts[:-1]]
        return _with_ascii_apostrophes("\n".join(parts))

    def _with_languages(self, paragraphs: Iterator[str]) -> Iterator[tuple[str, str | None]]:
        """Each paragraph with its language; without evidence, that of the one before or behind."""
        if self._options.language is not None:
            yield from ((paragraph, self._options.language) for paragraph in paragraphs)
            return
        language: str | None = None
        waiting: list[str] = []  # at the text's beginning, until one speaks for a language
        for paragraph in paragraphs:
            language = language_of(paragraph) or language
            waiting.append(paragraph)
            if language is not None or len(waiting) > _MOST_WAITING:
                yield from ((early, language) for early in waiting)
                waiting = []
        if not any(map(_LETTER.search, waiting)):
            language = language or "en"  # nothing but numbers
        yield from ((early, language) for early in waiting)

    def _spoken(self, sentence: str, language: str | None) -> str:
        """The sentence as the model gets it."""
        options = self._options
        if options.lexicon is not None:
            sentence = options.lexicon.apply(sentence)
        if not options.normalize or not has_speech(sentence):
            return sentence
        if options.language is None:
            language = language_of_sentence(sentence, language)
        self._look_at(MARK.sub("", sentence), language)
        return spell_out(sentence, language)

    def _look_at(self, sentence: str, language: str | None) -> None:
        if language == "ja" and _KANJI.search(sentence):
            self._note(
                "kanji are read as Chinese by this model: write Japanese in kana, or give readings"
                " in a lexicon"
            )
        if _DIGIT.search(sentence):
            if language not in GRAMMARS:
                self._note(
                    "numbers are left to the model where the language is not known to be one of"
                    f" {', '.join(GRAMMARS)} (--language says which it is)"
                )
            elif not normalizer_installed():
                self._note(f"numbers are left to the model; to have them written out: {INSTALL}")

    def _known_or_nothing(self, found: re.Match[str]) -> str:
        return found[0] if found[0] in self._marks.known else ""

    def _note(self, text: str) -> None:
        if text not in self._told and len(self._told) < _MOST_NOTES:
            self._told.add(text)
            self._notes.append(text)

    def _new_notes(self) -> Iterator[Note]:
        notes, self._notes = self._notes, []
        yield from map(Note, notes)


def read_plainly(text: str) -> Iterator[Item]:
    """The sentences of `text` as it is."""
    yield from map(Sentence, find_sentences(few_blanks(text)))


def _with_ascii_apostrophes(text: str) -> str:
    if "\u2018" not in text:
        text = _FINAL_APOSTROPHE.sub("'", text)
    return _APOSTROPHE.sub("'", text)


def _without_fences(texts: Iterator[list[str]]) -> Iterator[tuple[list[str], bool]]:
    """Blocks, cut where code begins and ends, and whether each is code."""
    fence: str | None = None
    for lines in texts:
        part: list[str] = []
        for line in lines:
            found = fence_of(line)
            if found is None or (fence is not None and not found.startswith(fence)):
                part.append(line)
                continue
            yield part, fence is not None
            part, fence = [], found if fence is None else None
        yield part, fence is not None
