"""The list of sentences."""

from __future__ import annotations

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.sentences import all_sentences, first_sentences


def test_the_list_has_66_english_sentences_of_5_to_25_words_then_10_chinese_ones():
    sentences = all_sentences()
    assert [sentence.language for sentence in sentences] == ["en"] * 66 + ["zh"] * 10
    assert all(5 <= len(sentence.text.split()) <= 25 for sentence in sentences[:66])
    assert len({sentence.name for sentence in sentences}) == 76
    assert len({sentence.text for sentence in sentences}) == 76


@pytest.mark.parametrize("count", [6, 12, 20, 66])
def test_the_first_sentences_are_balanced(count):
    kinds = [sentence.kind for sentence in first_sentences(count)]
    counts = [kinds.count(kind) for kind in set(kinds)]
    assert len(counts) == 6
    assert max(counts) - min(counts) <= 1


@pytest.mark.parametrize("count", [0, -1, 77])
def test_a_number_of_sentences_that_the_list_has_not_is_refused(count):
    with pytest.raises(UsageError) as caught:
        first_sentences(count)
    assert caught.value.what == f"{count} sentences can't be taken from a list of 76"
