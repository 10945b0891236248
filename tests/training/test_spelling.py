"""The spelling of texts in pieces."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from training.sentences import (
    SentenceMaker,
    Vocabulary,
)
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
