"""Numbers of threads: which are tried, and which wins."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.evaluation.bench.run import Statistic
from cosyvoice_cpu.evaluation.bench.tune import Candidate, choose, thread_candidates, tune_threads


@given(st.integers(1, 512), st.data())
def test_the_numbers_of_threads_to_try_are_few_and_hold_default_and_all(cpus, data):
    default = data.draw(st.integers(1, cpus))
    numbers = thread_candidates(cpus, default)
    assert {1, default, cpus} <= set(numbers)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == cpus
    assert len(numbers) <= 28


def test_fewer_threads_win_over_a_gain_below_three_percent():
    seconds = {1: 2.0, 2: 1.02, 4: 1.0, 8: 1.5}
    candidates = [Candidate(n, Statistic(s, s, s)) for n, s in seconds.items()]
    assert choose(candidates) == 2


def test_tuning_tries_every_number_and_picks_one_of_them(tiny_bundle):
    tuning = tune_threads(tiny_bundle, [1, 2], repeat=1)
    assert [candidate.threads for candidate in tuning.candidates] == [1, 2]
    assert tuning.best in {1, 2}
