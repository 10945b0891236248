"""Sums over sentences: weighted means with bootstrap intervals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.evaluation.quality.intelligibility import text_errors
from cosyvoice_cpu.evaluation.quality.measures import MEASURES
from cosyvoice_cpu.evaluation.quality.sentences import Sentence, all_sentences
from cosyvoice_cpu.evaluation.quality.table import ItemResult, QualityTable, bootstrap_interval

VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=12)


@given(VALUES, st.integers(0, 1000))
def test_the_interval_holds_the_mean_and_lies_within_the_values(values, seed):
    interval = bootstrap_interval(values, seed=seed)
    assert interval.value == pytest.approx(np.mean(values), abs=1e-9)
    assert min(values) - 1e-9 <= interval.low <= interval.value <= interval.high
    assert interval.high <= max(values) + 1e-9


@given(VALUES, st.integers(0, 1000))
def test_the_same_seed_gives_the_same_interval(values, seed):
    assert bootstrap_interval(values, seed=seed) == bootstrap_interval(values, seed=seed)


def test_weights_pool_the_error_rate_over_words():
    # 1 error in 2 words and 0 in 8 are 1 in 10, not the mean of 50 % and 0 %.
    assert bootstrap_interval([0.5, 0.0], [2, 8]).value == pytest.approx(0.1)


def test_items_without_weight_count_for_nothing():
    assert bootstrap_interval([7.0, 1.0, 1.0], [0, 1, 1]) == bootstrap_interval([1.0, 1.0])


def test_more_items_make_the_interval_narrower():
    rng = np.random.default_rng(0)
    few, many = (bootstrap_interval(rng.normal(size=n).tolist()) for n in (10, 1000))
    assert many.high - many.low < (few.high - few.low) / 4


def test_the_interval_covers_the_truth_about_95_times_in_100():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        interval = bootstrap_interval(rng.normal(size=40).tolist())
        covered += interval.low <= 0.0 <= interval.high
    assert 0.90 <= covered / 300 <= 0.98


def test_no_weight_at_all_has_no_mean():
    with pytest.raises(ValueError, match="have no mean"):
        bootstrap_interval([1.0], [0.0])


def example() -> QualityTable:
    one, two = (
        ItemResult(Sentence("en01", "en", "plain", "a b | c")),
        ItemResult(Sentence("en02", "en", "plain", "d")),
    )
    for item, value in ((one, 0.9), (two, 1.0)):
        item.put("mel_correlation", value)
    one.transcripts["candidate"], one.word_errors["candidate"] = (
        "a x c",
        text_errors("a b c", "a x c"),
    )
    one.put("word_error_rate", 1 / 3, 3, of="candidate")
    two.put("word_error_rate", 0.0, 1, of="candidate")
    return QualityTable("first", "second", 0, MEASURES, [one, two], ["ears: none"])


def test_sums_are_weighted_means_with_intervals():
    rows = {row.measure.name: row for row in example().rows()}
    assert list(rows) == ["mel_correlation", "word_error_rate"]
    assert rows["mel_correlation"].interval.value == pytest.approx(0.95)
    assert rows["word_error_rate"].interval.value == pytest.approx(1 / 4)
    assert rows["word_error_rate"].items == 2


def test_further_draws_of_a_sentence_are_averaged_where_they_have_a_value():
    first, second, third = (ItemResult(all_sentences()[0]) for _ in range(3))
    first.put("word_error_rate", 0.5, 10, of="candidate")
    first.put("kl_nats", 0.25)
    second.put("word_error_rate", 0.0, 10, of="candidate")
    first.average([second, third])
    assert first.cells["word_error_rate", "candidate"].value == 0.25
    assert first.cells["word_error_rate", "candidate"].weight == 10
    assert first.cells["kl_nats", "both"].value == 0.25
