"""Decoding, the silent-token rule and the solver, on sessions that are plain arrays."""

from __future__ import annotations

import weakref

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.places import DATA
from support.table_stages import GENERATION, SMALL, VOCABULARY, random_lm

from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.decoding.solver import cosine_preset, evaluations, solve, time_grid
from cosyvoice_cpu.decoding.token_loop import stream_tokens, token_limits
from cosyvoice_cpu.errors import TextError, UsageError

REFERENCE = np.load(DATA / "synthesis_reference.npz")


def generate(*given, **options):
    return list(stream_tokens(*given, **options))


@given(
    st.integers(0, 20),
    st.integers(0, 2**32),
    st.integers(0, 30),
    st.integers(0, 30),
    st.sampled_from([-4.0, 0.0, 6.0]),
    st.sampled_from(["ras", "greedy"]),
)
def test_lengths_stay_within_the_limits_and_no_stop_id_is_returned(
    lm, seed, least, more, bias, sampler
):
    tokens = generate(
        random_lm(lm, bias),
        [1, 2, 3],
        SMALL,
        seed=seed,
        sampler=sampler,
        min_tokens=least,
        max_tokens=least + more,
    )
    assert least <= len(tokens) <= least + more
    assert all(0 <= token < VOCABULARY for token in tokens)


def test_the_same_seed_gives_the_same_tokens_and_another_seed_gives_others():
    first, again, other = (
        generate(random_lm(1), [1] * 10, SMALL, seed=seed, min_tokens=30) for seed in (5, 5, 6)
    )
    assert first == again
    assert first != other


def test_the_default_limits_are_2_and_20_tokens_for_each_text_id():
    eager, endless = random_lm(2, stop_bias=50.0), random_lm(2, stop_bias=-50.0)
    assert len(generate(eager, [1] * 7, SMALL)) == 14
    assert len(generate(endless, [1] * 7, SMALL)) == 140
    assert token_limits(SMALL, 7) == (14, 140)


def test_the_prompt_does_not_lengthen_the_limits():
    lm = random_lm(2, stop_bias=-50.0)
    tokens = generate(lm, [1, 2], SMALL, prompt_text_ids=[3] * 9, prompt_speech_ids=[4] * 20)
    assert len(tokens) == 40
    assert lm.prompt == ([1, 2], [3] * 9, [4] * 20)


def test_the_original_stop_rule_bans_only_the_first_special_id():
    eager = random_lm(3, stop_bias=50.0)
    assert generate(eager, [1] * 7, SMALL, original_stop_rule=True) == []
    only_sos = random_lm(3)
    only_sos.table[:, VOCABULARY] = 50.0
    only_sos.table[:, VOCABULARY + 1 :] = -50.0
    assert len(generate(only_sos, [1] * 7, SMALL, original_stop_rule=True)) == 14


def test_the_last_token_is_not_fed_when_nothing_more_is_wanted():
    lm = random_lm(4, stop_bias=-50.0)
    tokens = generate(lm, [1], SMALL, max_tokens=5)
    assert lm.read == tokens[:4]


def test_banning_does_not_write_into_the_engines_buffer():
    lm = random_lm(5)
    before = lm.table.copy()
    generate(lm, [1] * 4, SMALL)
    assert np.array_equal(lm.table, before)


def test_a_token_is_handed_on_before_the_next_one_is_computed():
    lm = random_lm(4, stop_bias=-50.0)
    tokens = stream_tokens(lm, [1], SMALL, max_tokens=5)
    assert lm.prompt is None
    taken = []
    for token in tokens:
        assert lm.read == taken
        taken.append(token)
    assert taken == generate(random_lm(4, stop_bias=-50.0), [1], SMALL, max_tokens=5)


@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_an_utterance_that_is_cancelled_lets_go_of_its_cache(way):
    lm = random_lm(4, stop_bias=-50.0)
    gone = weakref.ref(lm)
    tokens = stream_tokens(lm, [1], SMALL)
    next(tokens)
    del lm
    assert gone() is not None
    if way == "closed":
        tokens.close()
    else:
        del tokens
    assert gone() is None


def test_a_text_without_ids_is_refused():
    with pytest.raises(TextError, match="there is no text to speak"):
        stream_tokens(random_lm(0), [], SMALL)  # at the call, before a token is asked for


@pytest.mark.parametrize(("least", "most"), [(5, 4), (-1, 3), (0, -1)])
def test_limits_that_contradict_each_other_are_wrong_usage(least, most):
    with pytest.raises(UsageError, match="can't both hold"):
        stream_tokens(random_lm(0), [1], SMALL, min_tokens=least, max_tokens=most)


def test_a_maximum_below_the_default_minimum_wins_over_it():
    assert len(generate(random_lm(6, stop_bias=50.0), [1] * 9, SMALL, max_tokens=3)) == 3


def test_the_silent_token_rule_is_the_originals():
    kept = shorten_silence(
        REFERENCE["silent_rule_in"].tolist(), GENERATION.silent_tokens, GENERATION.silent_run_limit
    )
    assert kept == REFERENCE["silent_rule_out"].tolist()


@given(st.lists(st.integers(0, 5), max_size=60), st.integers(0, 6))
def test_only_silent_tokens_are_dropped_and_no_run_exceeds_the_limit(tokens, limit):
    kept = shorten_silence(tokens, {1, 2}, limit)
    assert [t for t in kept if t > 2 or t == 0] == [t for t in tokens if t > 2 or t == 0]
    assert shorten_silence(kept, {1, 2}, limit) == kept
    assert shorten_silence(tokens, (), limit) == tokens


def test_the_time_grid_and_the_times_seen_are_the_originals_to_the_bit():
    assert np.array_equal(time_grid(10), REFERENCE["cfm_t_span"])
    times = [entry.time for entry in evaluations(SMALL.solver)]
    assert np.array_equal(times, REFERENCE["cfm_t_seen"][:, 0])


def test_guidance_weighs_the_two_rows_and_the_unconditioned_one_sees_zeros():
    rng = np.random.default_rng(0)
    noise, mu, cond = rng.normal(size=(3, 80, 12)).astype(np.float32)
    speaker = rng.normal(size=80).astype(np.float32)
    times = []

    def velocity(x, mask, mu_pair, t, speaker_pair, cond_pair):
        assert mask.shape == (2, 1, 12)
        assert np.all(mask == 1)
        assert np.array_equal(x[0], x[1])
        assert t[0] == t[1]
        times.append(t[0])
        for pair, given_array in ((mu_pair, mu), (cond_pair, cond), (speaker_pair, speaker)):
            assert np.array_equal(pair[0], given_array)
            assert not pair[1].any()
        return np.stack([np.full((80, 12), 2.0), np.full((80, 12), 1.0)]).astype(np.float32)

    mel = solve(velocity, noise, mu, cond, speaker, preset=SMALL.solver)
    assert times == [entry.time for entry in evaluations(SMALL.solver)]
    # A constant velocity of 1.7 * 2 - 0.7 * 1 over a time of 1 moves every bin by 2.7.
    assert np.allclose(mel - noise, 2.7, atol=1e-5)
    assert mel.dtype == np.float32


@given(st.integers(1, 40))
def test_the_steps_add_up_to_the_whole_time(steps):
    noise = np.zeros((80, 3), np.float32)

    def ones(x, *_):
        return np.ones_like(x)

    mel = solve(
        ones,
        noise,
        noise,
        noise,
        np.zeros(80, np.float32),
        preset=cosine_preset(SMALL.solver, steps),
    )
    assert np.allclose(mel, 1.0, atol=1e-5)
    assert np.all(np.diff(time_grid(steps)) > 0)


def test_guidance_holds_within_its_range_of_times_only():
    def velocity(x, mask, mu, t, speaker, cond):
        assert len(x) == (2 if first <= t[0] <= last else 1)  # no row is computed for nothing
        return np.stack([np.ones_like(x[0]), np.zeros_like(x[0])])[: len(x)]

    noise = np.zeros((80, 3), np.float32)
    base = SMALL.solver
    speaker = np.zeros(80, np.float32)
    for guidance_range, part in [((0.0, 1.0), 1.0), ((2.0, 2.0), 0.0), ((0.0, 0.3), base.grid[6])]:
        first, last = guidance_range
        preset = msgspec.structs.replace(base, guidance_range=guidance_range)
        mel = solve(velocity, noise, noise, noise, speaker, preset=preset)
        assert np.abs(mel - (1 + base.guidance_rate * part)).max() < 1e-5
