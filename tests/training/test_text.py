"""The demo voice's texts: sentences from a seed, and their spelling."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from training.sentences import (
    SentenceMaker,
    Vocabulary,
    plural,
)
from training.speech import Sentence, joined
from training.spelling import (
    SYSTEM_PREFIX,
    Spelling,
    learn_merges,
    write_tokenizer,
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


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    maker = SentenceMaker(VOCABULARY, 3)
    folder = tmp_path_factory.mktemp("text")
    write_tokenizer(folder, learn_merges((maker.sentence() for _ in range(300)), count=200))
    return folder


@given(
    st.lists(
        st.sampled_from("The cat isn't here, 21 times! \"Yes,\" it's a box".split()), min_size=1
    )
)
def test_loose_spelling_without_dropout_is_the_tokenizers_own(text_folder, words):
    spelling = Spelling(text_folder)
    text = " ".join(words)
    pieces = spelling.pieces(text, 0, np.random.default_rng(0))
    assert spelling.ids(pieces) == spelling.encode(text)


def test_loose_spelling_still_spells_the_text(text_folder):
    spelling = Spelling(text_folder)
    pieces = spelling.pieces("Another friendly woman refused.", 0.5, np.random.default_rng(0))
    assert "".join(pieces).replace("Ġ", " ") == "Another friendly woman refused."
    assert len(pieces) > len(spelling.encode("Another friendly woman refused."))


def test_the_system_prefix_takes_few_ids_and_ends_in_the_end_of_prompt(text_folder):
    ids = Spelling(text_folder).encode(SYSTEM_PREFIX)
    assert len(ids) <= 8
    assert ids[-1] == TextTokenizer.load(text_folder).end_of_prompt_id


def _sentence(units, f0):
    samples = 600 * units
    return Sentence(
        phonemes=[83],
        durations=np.array([units]),
        audio=np.full(samples, 0.5, np.float32),
        f0=np.full(samples, f0),
        phase=np.cumsum(np.full(samples, f0)) / 24000,
    )


def test_sentences_are_joined_to_whole_tokens_with_silence_behind():
    speech = joined("Two.", [_sentence(3, 120.0), _sentence(2, 0.0)], voiced_above=40.0)
    assert len(speech.audio) == 960 * 4 and not speech.audio[3000:].any()
    assert speech.f0.tolist() == [120, 120, 120, 90, 0, 0, 0, 0]  # the mean over 3.75 voiced frames
    assert speech.phase[0] == pytest.approx(120 * 480 / 24000 % 1, abs=1e-3)
    assert speech.units.tolist() == [83] * 5


def test_durations_that_do_not_add_up_are_refused():
    part = _sentence(3, 100.0)
    wrong = dataclasses.replace(part, audio=part.audio[:-600])
    with pytest.raises(ValueError, match="do not add up"):
        joined("Three.", [wrong], voiced_above=40.0)
