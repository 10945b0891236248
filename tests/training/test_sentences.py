"""Sentences from a seed."""

from __future__ import annotations

import pytest

from training.sentences import (
    SentenceMaker,
    Vocabulary,
    plural,
)

VOCABULARY = Vocabulary(
    nouns=("asteroid", "battery"),
    adjectives=("granular",),
    adverbs=("drastically",),
    past_verbs=("refused",),
    gerunds=("giving",),
    common=("asteroid", "granular", "refused"),
    rare=("kitchenware", "hammerhead"),
)


def test_the_same_seed_gives_the_same_sentences():
    first, second = (SentenceMaker(VOCABULARY, "train-0000") for _ in range(2))
    assert [first.sentence() for _ in range(200)] == [second.sentence() for _ in range(200)]


def test_sentences_hold_letters_and_final_punctuation_and_no_digits():
    maker = SentenceMaker(VOCABULARY, 1)
    for text in (maker.sentence() for _ in range(2000)):
        assert text.isascii() and not any(c.isdigit() for c in text), text
        assert text[-1] in ".?!" or text.endswith('"'), text
        assert "{" not in text and "  " not in text, text


def test_reading_sentences_have_five_to_twenty_five_words():
    maker = SentenceMaker(VOCABULARY, 2)
    lengths = {len(maker.reading_sentence().split()) for _ in range(500)}
    assert min(lengths) >= 5 and max(lengths) <= 25


@pytest.mark.parametrize(
    ("noun", "many"),
    [("box", "boxes"), ("city", "cities"), ("day", "days"), ("church", "churches")],
)
def test_plurals_follow_the_spelling_rules(noun, many):
    assert plural(noun) == many
