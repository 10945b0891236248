"""Sampling against the original's candidates, certain answers and 20000-draw histograms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.places import DATA

from cosyvoice_cpu.bundle.manifest import Sampling
from cosyvoice_cpu.decoding.sampling import (
    generator_for,
    greedy,
    nucleus,
    repetition_aware,
    sampler_named,
)
from cosyvoice_cpu.errors import SynthesisError, UsageError

REFERENCE = np.load(DATA / "synthesis_reference.npz")
DEFAULT = Sampling(top_p=0.8, top_k=25, win_size=10, tau_r=0.1)
LOGITS = arrays(np.float32, st.integers(2, 60), elements=st.floats(-30, 30, width=32))


def test_the_nucleus_holds_the_originals_candidates():
    cases = zip(
        REFERENCE["nucleus_cases_top_p_top_k"], REFERENCE["nucleus_candidate_ids"], strict=True
    )
    for (top_p, top_k), expected in cases:
        ids, _ = nucleus(REFERENCE["ras_scores"], float(top_p), int(top_k))
        assert ids.tolist() == [i for i in expected if i >= 0]


def test_of_equal_logits_the_lower_id_comes_first():
    ids, _ = nucleus(REFERENCE["nucleus_tie_scores"], 0.99, 25)
    assert ids.tolist() == REFERENCE["nucleus_tie_candidate_ids"].tolist()


def test_cases_without_chance_have_the_originals_answers():
    for scores, history, expected in zip(
        REFERENCE["ras_det_scores"],
        REFERENCE["ras_det_history"],
        REFERENCE["ras_det_expected"],
        strict=True,
    ):
        past = [int(i) for i in history if i >= 0]
        for seed in range(5):
            assert repetition_aware(scores, past, generator_for(seed), DEFAULT) == expected


@pytest.mark.parametrize("row", [0, 1, 2])
def test_draws_follow_the_originals_histograms(row):
    history = REFERENCE["ras_hist_history"].tolist() if row == 2 else []
    rng = generator_for(7)
    scores = REFERENCE["ras_scores"]
    drawn = [repetition_aware(scores, history, rng, DEFAULT) for _ in range(20000)]
    ours = np.bincount(drawn, minlength=64)
    theirs = REFERENCE["ras_hist_20000"][row]

    total = ours + theirs
    seen = total >= 10  # two samples of one size: sum (a - b)^2 / (a + b) is chi-square
    statistic = float((((ours - theirs) ** 2)[seen] / total[seen]).sum())
    freedom = int(seen.sum()) - 1
    assert statistic < freedom + 5 * np.sqrt(2 * freedom), (statistic, freedom)
    assert not (ours[theirs == 0] > 10).any()


@given(LOGITS, st.floats(0.01, 1.0), st.integers(1, 30))
def test_the_nucleus_is_the_shortest_that_reaches_top_p_within_top_k(logits, top_p, top_k):
    ids, kept = nucleus(logits, top_p, top_k)
    assert 1 <= len(ids) <= min(top_k, len(logits))
    assert len(set(ids.tolist())) == len(ids)
    assert len(ids) == 1 or kept[:-1].sum() < top_p + 1e-12
    assert len(ids) == min(top_k, len(logits)) or kept.sum() >= top_p - 1e-12
    assert logits[ids].min() >= np.partition(logits, -len(ids))[-len(ids)]
    full_sort = np.argsort(-logits.astype(np.float64), kind="stable")
    assert ids.tolist() == full_sort[: len(ids)].tolist()


@given(LOGITS, st.data())
def test_an_id_of_minus_infinity_is_never_drawn(logits, data):
    banned = data.draw(st.sets(st.integers(0, len(logits) - 1), max_size=len(logits) - 1))
    scores = logits.copy()
    scores[list(banned)] = -np.inf
    history = data.draw(st.lists(st.integers(0, len(logits) - 1), max_size=20))
    rng = generator_for(data.draw(st.integers(0, 2**32)))
    for _ in range(5):
        assert repetition_aware(scores, history, rng, DEFAULT) not in banned
    assert greedy(scores, history, rng) not in banned


@given(LOGITS, st.integers(0, 2**63))
def test_one_seed_gives_one_sequence(logits, seed):
    first, second = ([], [])
    for history in (first, second):
        rng = generator_for(seed)
        for _ in range(8):
            history.append(repetition_aware(logits, history, rng, DEFAULT))
    assert first == second


@given(LOGITS)
def test_drawing_leaves_the_logits_as_they_were(logits):
    before = logits.copy()
    history = list(range(len(logits)))
    repetition_aware(logits, history[-10:], generator_for(0), DEFAULT)
    assert np.array_equal(logits, before)


@settings(max_examples=20)
@given(st.integers(0, 2**32))
def test_a_recent_id_gives_way_to_another_one(seed):
    logits = np.zeros(8, np.float32)
    logits[3] = 50.0
    assert repetition_aware(logits, [3], generator_for(seed), DEFAULT) != 3
    assert repetition_aware(logits, [3] + [1] * 10, generator_for(seed), DEFAULT) == 3


def test_the_only_id_that_is_allowed_may_repeat():
    logits = np.full(8, -np.inf, np.float32)
    logits[5] = 1.0
    assert repetition_aware(logits, [5, 5, 5], generator_for(0), DEFAULT) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["ras", "greedy"])
def test_logits_that_are_not_finite_are_refused(name, value):
    draw = sampler_named(name, DEFAULT)
    with pytest.raises(SynthesisError, match="logits are unusable"):
        draw(np.full(4, value, np.float32), [], generator_for(0))


def test_an_unknown_sampler_is_wrong_usage():
    with pytest.raises(UsageError) as caught:
        sampler_named("beam", DEFAULT)
    assert (caught.value.what, caught.value.hint) == (
        "unknown sampler 'beam'",
        "samplers: ras, greedy",
    )
