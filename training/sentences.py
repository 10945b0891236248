"""Endless English sentences with a wide vocabulary, from a seed.

A voice that knows only a few hundred words can read nothing else, so four kinds of text are mixed:

- grammatical sentences from templates, over everyday words and the tagged words of hibari's
  part-of-speech tagger;
- lists and strings of words, common or rare, which teach spelling without the help of grammar;
- numbers, dates and times, written as words;
- everyday phrases, most of them short.

Word lists beyond the everyday ones are passed in as a `Vocabulary` (see `vocabulary.py`), so this
module has no dependencies and is deterministic for a seed and a vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from training.numbers import cardinal, ordinal
from training.words import (
    ADVERBS,
    DETERMINERS,
    EVERYDAY_ADJECTIVES,
    EVERYDAY_NOUNS,
    INTRANSITIVE_VERBS,
    MODALS,
    MONTHS,
    OBJECT_PRONOUNS,
    PEOPLE,
    PHRASES,
    PLACES,
    PREPOSITIONS,
    PRONOUNS,
    TIMES,
    TRANSITIVE_VERBS,
)


@dataclass(frozen=True)
class Vocabulary:
    """Words by part of speech (lower case), beyond the everyday lists of this module."""

    nouns: tuple[str, ...]
    adjectives: tuple[str, ...]
    adverbs: tuple[str, ...]
    past_verbs: tuple[str, ...]
    gerunds: tuple[str, ...]
    common: tuple[str, ...]  # of any kind
    rare: tuple[str, ...]  # of any kind


def plural(noun: str) -> str:
    """The regular plural of `noun`."""
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + ("es" if noun.endswith(("s", "x", "z", "ch", "sh")) else "s")


class SentenceMaker:
    """Draws sentences; the same `seed` and `vocabulary` give the same sequence."""

    def __init__(self, vocabulary: Vocabulary, seed: int | str) -> None:
        self._random = random.Random(seed)
        self._vocabulary = vocabulary
        self._kinds: tuple[tuple[float, Callable[[], str]], ...] = (
            (0.46, self._grammatical),
            (0.14, self._word_list),
            (0.14, self._word_string),
            (0.10, self._with_number),
            (0.10, self._phrase),
            (0.06, self._long),
        )

    def sentence(self) -> str:
        """One text of 1 to about 30 words, with its final mark; it may hold several sentences."""
        (kind,) = self._random.choices(
            [make for _, make in self._kinds], [share for share, _ in self._kinds]
        )
        return kind()

    def reading_sentence(self) -> str:
        """A grammatical sentence of 5 to 25 words, the kind that a reader is judged by."""
        while True:
            text = self._grammatical() if self._random.random() < 0.8 else self._long()
            if 5 <= len(text.split()) <= 25:
                return text

    def _pick(self, everyday: Sequence[str], wide: Sequence[str], everyday_share: float) -> str:
        use_everyday = not wide or self._random.random() < everyday_share
        return self._random.choice(everyday if use_everyday else wide)

    def _noun(self) -> str:
        return self._pick(EVERYDAY_NOUNS, self._vocabulary.nouns, 0.45)

    def _adjective(self) -> str:
        return self._pick(EVERYDAY_ADJECTIVES, self._vocabulary.adjectives, 0.45)

    def _adverb(self) -> str:
        return self._pick(ADVERBS, self._vocabulary.adverbs, 0.5)

    def _verb(self, verbs: Sequence[str], form: int) -> str:
        return self._random.choice(verbs).split(":")[form]

    def _noun_phrase(self) -> str:
        adjective = f"{self._adjective()} " if self._random.random() < 0.4 else ""
        noun = self._noun()
        if self._random.random() < 0.12:
            return f"{cardinal(self._random.randrange(2, 100))} {adjective}{plural(noun)}"
        determiner = self._random.choice(DETERMINERS)
        if determiner == "a" and (adjective or noun)[0] in "aeiou":
            determiner = "an"
        return f"{determiner} {adjective}{noun}"

    def _subject(self) -> str:
        draw = self._random.random()
        if draw < 0.25:
            return self._random.choice(PEOPLE)
        return self._random.choice(PRONOUNS) if draw < 0.45 else self._noun_phrase()

    def _object(self) -> str:
        draw = self._random.random()
        if draw < 0.1:
            return self._random.choice(OBJECT_PRONOUNS)
        return self._random.choice(PEOPLE) if draw < 0.2 else self._noun_phrase()

    def _past(self) -> str:
        """A past-tense predicate."""
        choice = self._random.random()
        if choice < 0.45:
            return f"{self._verb(TRANSITIVE_VERBS, 1)} {self._object()}"
        if choice < 0.65 and self._vocabulary.past_verbs:
            return f"{self._random.choice(self._vocabulary.past_verbs)} {self._object()}"
        return self._verb(INTRANSITIVE_VERBS, 1)

    def _plain(self) -> str:
        """An infinitive predicate."""
        if self._random.random() < 0.7:
            return f"{self._verb(TRANSITIVE_VERBS, 0)} {self._object()}"
        return self._verb(INTRANSITIVE_VERBS, 0)

    def _place(self) -> str:
        return f"{self._random.choice(PREPOSITIONS)} {self._noun_phrase()}"

    def _gerund(self) -> str:
        return self._pick(("reading", "walking", "singing"), self._vocabulary.gerunds, 0.1)

    def _grammatical(self) -> str:
        pick = self._random.choice
        np, subject, past, plain, place = (
            self._noun_phrase, self._subject, self._past, self._plain, self._place,
        )  # fmt: skip
        text = pick((
            lambda: f"{subject()} {past()}",
            lambda: f"{subject()} {past()} {place()}",
            lambda: f"{subject()} {self._adverb()} {past()}",
            lambda: f"{subject()} {past()} {place()} {pick(TIMES)}",
            lambda: f"{pick(TIMES)}, {subject()} {past()}",
            lambda: f"{pick(TIMES)} {np()} {past()} {place()}",
            lambda: f"{subject()} {pick(MODALS)} {plain()} {place()}",
            lambda: f"{pick(PRONOUNS[:2])} {pick(MODALS)} {plain()}",
            lambda: f"please {plain()} {place()}",
            lambda: f"{plain()}, and then {plain()}",
            lambda: (
                f"there were {cardinal(self._random.randrange(2, 50))} "
                f"{plural(self._noun())} {place()}"
            ),
            lambda: (
                f"{np()} was {self._adjective()} and {self._adjective()}, "
                f"but {subject()} {past()}"
            ),
            lambda: f"when {subject()} {past()}, {subject()} {past()}",
            lambda: f"{subject()} said that {subject()} {past()} {place()}",
            lambda: f"the {self._noun()} of {np()} is {self._adjective()}",
            lambda: f"the {self._noun()} {self._noun()} {past()}",
            lambda: f"did {subject()} {plain()} {pick(TIMES)}?",
            lambda: f"why {pick(MODALS[:6])} {pick(PRONOUNS)} {plain()}?",
            lambda: f"where is {np()}?",
            lambda: f"what {pick(MODALS[:6])} {pick(PRONOUNS)} do with {np()} {place()}?",
            lambda: f"how {self._adjective()} {np()} is!",
            lambda: f"{self._adjective()} {plural(self._noun())} {past()}",
            lambda: f"if {subject()} {past()}, {pick(PEOPLE)} {pick(MODALS)} {plain()}",
            lambda: (
                f"{pick(PEOPLE)} and {pick(PEOPLE)} {past()} "
                f"because {np()} was {self._adjective()}"
            ),
            lambda: f"{self._gerund()} is {self._adverb()} {self._adjective()}",
            lambda: f"after {self._gerund()} {np()}, {subject()} {past()}",
            lambda: f"{pick(PEOPLE)} traveled from {pick(PLACES)} to {pick(PLACES)} {place()}",
            lambda: f"{np()}, {np()} and {np()} are {self._adjective()}",
            lambda: f"\"{subject()} {past()},\" said {pick(PEOPLE)}",
            lambda: f"{subject()} {past()}; {subject()} {past()}",
            lambda: f"it was {self._adverb()} {self._adjective()}, wasn't it?",
        ))()  # fmt: skip
        return _finish(text, self._random)

    def _words(self, low: int, high: int) -> list[str]:
        count = self._random.randint(low, high)
        return [
            self._pick(self._vocabulary.common, self._vocabulary.rare, 0.62) for _ in range(count)
        ]

    def _word_list(self) -> str:
        *head, last = self._words(2, 7)
        return _finish(
            f"{', '.join(head)}{self._random.choice((' and', ', or', ','))} {last}", self._random
        )

    def _word_string(self) -> str:
        words = self._words(1, 9)
        for i in range(2, len(words), 3):  # a function word now and then keeps the rhythm of speech
            words[i] = self._random.choice((*PREPOSITIONS, *DETERMINERS, "and", "is", "was", "or"))
        return _finish(" ".join(words), self._random)

    def _with_number(self) -> str:
        r = self._random
        n = cardinal(
            r.choice(
                (r.randrange(100), r.randrange(1000), r.randrange(10000), r.randrange(1000000))
            )
        )
        day = ordinal(r.randrange(1, 32))
        return _finish(r.choice((
            f"{n} {plural(self._noun())} {self._past()}",
            f"the number is {n}",
            f"it cost {n} dollars and {cardinal(r.randrange(2, 100))} cents",
            f"on the {day} of {r.choice(MONTHS)}, {self._subject()} {self._past()}",
            f"{r.choice(MONTHS)} {day}, {cardinal(r.choice((18, 19, 20)))} "
            f"{cardinal(r.randrange(10, 100))}",
            f"the answer is {cardinal(r.randrange(100))} point {self._digits(1, 4)}",
            f"about {cardinal(r.randrange(1, 100))} percent of {plural(self._noun())} "
            f"are {self._adjective()}",
            f"call {self._digits(3, 7)}",
            f"{cardinal(r.randrange(20))} plus {cardinal(r.randrange(20))} "
            f"is {cardinal(r.randrange(40))}",
            f"it was half past {cardinal(r.randrange(1, 13))} {r.choice(TIMES)}",
            f"the {ordinal(r.randrange(1, 100))} {self._noun()} {self._past()}",
        )), r)  # fmt: skip

    def _digits(self, low: int, high: int) -> str:
        count = self._random.randint(low, high)
        return " ".join(cardinal(self._random.randrange(10)) for _ in range(count))

    def _phrase(self) -> str:
        return self._random.choice(PHRASES).format(
            person=self._random.choice(PEOPLE),
            place=self._random.choice(PLACES),
            month=self._random.choice(MONTHS),
            time=self._random.choice(TIMES),
            number=cardinal(self._random.randrange(2, 60)),
            noun=self._noun(),
            adjective=self._adjective(),
        )

    def _long(self) -> str:
        joined = f" {self._random.choice(('and', 'but', 'so', 'because', 'while'))} "
        first, second = self._grammatical(), self._grammatical()
        if self._random.random() < 0.5 or first[-1] != ".":
            return f"{first} {second}"
        keeps_case = second.split()[0].rstrip(",") in {"I", *PEOPLE}
        return first[:-1] + joined + (second if keeps_case else second[0].lower() + second[1:])


def _finish(text: str, draw: random.Random) -> str:
    """Capital first letter, final mark."""
    start = 1 if text[0] == '"' else 0
    text = text[:start] + text[start].upper() + text[start + 1 :]
    return text if text[-1] in ".?!" else text + draw.choice("....!")
