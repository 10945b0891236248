"""Solvers on fields whose solution is known: order, cost, where guidance acts."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bundle_examples import SOLVER

from cosyvoice_cpu.bundle.manifest import SolverPreset
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES, exact_preset, searched_times
from cosyvoice_cpu.decoding.solver import (
    METHODS,
    evaluated_rows,
    evaluation_times,
    evaluations,
    solve,
    time_grid,
)

START = np.ones((80, 2), np.float32)
NO_SPEAKER = np.zeros(80, np.float32)


def preset(method: str, grid: list[float], **changes: object) -> SolverPreset:
    made = msgspec.structs.replace(SOLVER, method=method, steps=len(grid) - 1, grid=grid)
    return msgspec.structs.replace(made, **changes)


def uniform(steps: int) -> list[float]:
    return [step / steps for step in range(steps + 1)]


def grown(solver: SolverPreset, rate: float) -> float:
    """What 1 becomes under dx/dt = rate x, in time 1."""

    def velocity(x, mask, mu, t, speaker, cond):
        return np.float32(rate) * x

    return float(solve(velocity, START, START, START, NO_SPEAKER, preset=solver)[0, 0])


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2), ("rk4", 4)])
@given(rate=st.floats(-1.5, 1.5).filter(lambda rate: abs(rate) > 0.5), steps=st.integers(1, 6))
def test_a_step_of_a_linear_field_is_the_exponential_up_to_its_order(method, order, rate, steps):
    taylor = sum((rate / steps) ** power / math.factorial(power) for power in range(order + 1))
    assert grown(preset(method, uniform(steps)), rate) == pytest.approx(
        taylor**steps, rel=1e-5, abs=1e-6
    )


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("midpoint", 2)])
def test_halving_the_steps_halves_the_error_as_often_as_the_order_says(method, order):
    errors = [abs(grown(preset(method, uniform(steps)), 1.0) - math.e) for steps in (8, 16)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.25)


@pytest.mark.parametrize("method", METHODS)
@given(
    cuts=st.lists(st.integers(1, 99), max_size=8, unique=True),
    edges=st.tuples(st.integers(0, 100), st.integers(0, 100)),
)
def test_guidance_outside_its_range_is_a_rate_of_zero_and_half_the_cost(method, cuts, edges):
    grid = [0.0, *sorted(cut / 100 for cut in cuts), 1.0]
    low, high = sorted(edge / 100 for edge in edges)
    solver = preset(method, grid, guidance_range=(low, high))
    seen = []

    def velocity(x, mask, mu, t, speaker, cond):
        assert len(mask) == len(mu) == len(t) == len(speaker) == len(cond) == len(x)
        seen.append((t[0], len(x)))
        # What a network would say of either row depends on x, t and whether it is conditioned.
        return np.sin(3 * x + t[0]) + mu

    def always_both(x, mask, mu, t, speaker, cond):
        rows = [
            velocity(*(array[i : i + 1] for array in (x, mask, mu, t, speaker, cond)))
            for i in range(len(x))
        ]
        return np.concatenate(rows)

    mu = np.full((80, 2), 0.5, np.float32)
    got = solve(velocity, START, mu, mu, NO_SPEAKER, preset=solver)
    entries = evaluations(solver)
    assert seen == [(entry.time, entry.rows) for entry in entries]
    assert evaluated_rows(solver) == sum(rows for _, rows in seen)
    assert all(rows == (2 if low <= t <= high else 1) for t, rows in seen)
    again = solve(always_both, START, mu, mu, NO_SPEAKER, preset=solver)
    assert np.array_equal(got, again)


def test_without_a_rate_the_unconditioned_row_costs_nothing():
    solver = preset("midpoint", uniform(3), guidance_rate=0.0)
    assert [entry.rows for entry in evaluations(solver)] == [1] * 6


def test_the_default_costs_what_the_original_does():
    assert evaluated_rows(SOLVER) == 20
    assert SOLVER.grid == [float(t) for t in time_grid(10)]


@pytest.mark.parametrize("name", CANDIDATES)
def test_each_candidate_is_a_solver_that_is_cheaper_and_whose_times_a_bundle_has(name):
    candidate = CANDIDATES[name].preset(SOLVER)
    solved = CANDIDATES[name].prompt == "solved"
    assert evaluated_rows(candidate) < evaluated_rows(SOLVER) + (not solved)
    assert candidate.guidance_rate == SOLVER.guidance_rate
    assert candidate.grid[0] == 0
    assert candidate.grid[-1] == 1
    assert sorted(set(candidate.grid)) == candidate.grid
    assert set(evaluation_times([candidate])) <= set(searched_times(SOLVER))


def test_the_exact_solver_is_far_more_exact_than_the_default():
    truth = math.exp(1.0)
    assert abs(grown(exact_preset(SOLVER), 1.0) - truth) < 1e-3
    assert abs(grown(SOLVER, 1.0) - truth) > 0.1
