"""Solvers of the conditional flow's equation, with classifier-free guidance.

A method is an explicit Runge-Kutta tableau, so each is a row of `METHODS`; what else there is to a
solver (grid, guidance and where it acts) is a `SolverPreset`. The default is the original's: ten
Euler steps. Each evaluation of the network is a batch of two where guidance acts, else of one,
which costs half.

Sources: CosyVoice cosyvoice/flow/flow_matching.py, CausalConditionalCFM.forward and solve_euler;
tableaus: Hairer, Norsett, Wanner, Solving Ordinary Differential Equations I, chapter II.1; guidance
in a part of the time only: Kynkaanniemi et al., arXiv 2404.07724.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Protocol

import msgspec
import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverMethod, SolverPreset


class Velocity(Protocol):
    """The flow estimator: x, mu, cond [B, 80, T], mask [B, 1, T], t [B], speaker [B, 80]."""

    def __call__(
        self, x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
    ) -> Floats:
        """Velocity [B, 80, T]."""
        ...


@dataclass(frozen=True)
class Tableau:
    """An explicit Runge-Kutta method: where slopes are taken, and how they are added up."""

    nodes: tuple[float, ...]  # of each slope, as a share of the step
    inner: tuple[tuple[float, ...], ...]  # for each slope, weights of those before it
    outer: tuple[float, ...]  # weights of all slopes in the step's result


METHODS: Final[Mapping[SolverMethod, Tableau]] = {
    "euler": Tableau((0.0,), ((),), (1.0,)),
    "midpoint": Tableau((0.0, 0.5), ((), (0.5,)), (0.0, 1.0)),
    # Of fourth order; what others are compared with.
    "rk4": Tableau(
        (0.0, 0.5, 0.5, 1.0),
        ((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)),
        (1 / 6, 1 / 3, 1 / 3, 1 / 6),
    ),
}


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of the network: at which time, and on how many rows."""

    time: np.float32
    rows: int  # 2 with guidance: conditioned and not; 1 without


@lru_cache(maxsize=8)
def time_grid(steps: int) -> Floats:
    """Cosine time grid, float32 [steps + 1] from 0 to 1; read-only.

    Bit for bit the original's for its 10 steps.
    """
    position = np.linspace(0.0, 1.0, steps + 1, dtype=np.float32)
    angle = position * np.float32(0.5 * np.pi)
    # Cosine in double: single precision is off by one unit for some t and depends on the CPU.
    cosine = np.cos(angle.astype(np.float64)).astype(np.float32)
    return _read_only(np.float32(1.0) - cosine)


def evaluations(preset: SolverPreset) -> list[Evaluation]:
    """What `preset` asks of the network, in order.

    The solver accumulates t in float32 instead of reading the grid, and a graph that folds the time
    embedding needs the very same values.
    """
    return [
        Evaluation(time, 2 if _guidance(preset, time) else 1)
        for t, dt in _walk(preset.grid)
        for time in _times(METHODS[preset.method], t, dt)
    ]


def evaluation_times(presets: Sequence[SolverPreset]) -> list[float]:
    """All times at which `presets` ask the network, each once, ascending; float32 values."""
    times = {entry.time for preset in presets for entry in evaluations(preset)}
    return sorted(float(time) for time in times)


def evaluated_rows(preset: SolverPreset) -> int:
    """Rows that `preset` computes in all: what it costs, 20 for the original's ten steps."""
    return sum(entry.rows for entry in evaluations(preset))


def cosine_preset(preset: SolverPreset, steps: int) -> SolverPreset:
    """`preset` with `steps` steps of the cosine grid, for networks that take any time."""
    if steps == preset.steps:
        return preset
    grid = [float(t) for t in time_grid(steps)]
    return msgspec.structs.replace(preset, steps=steps, grid=grid)


def solve(
    velocity: Velocity,
    noise: Floats,
    mu: Floats,
    cond: Floats,
    speaker: Floats,
    *,
    preset: SolverPreset,
) -> Floats:
    """Log-mel [80, T] from noise [80, T], conditioned on mu, cond [80, T] and speaker [80].

    Where guidance acts, an evaluation asks for a batch of two: row 0 conditioned, row 1 with
    everything zero but x and t; v = (1 + r) v0 - r v1, r the preset's guidance rate. Elsewhere it
    asks for row 0 alone, which is v for r = 0. The prompt's frames are part of T and are not
    overwritten while solving. Raises: ValueError if the shapes disagree.
    """
    if not noise.shape == mu.shape == cond.shape:
        raise ValueError(f"noise {noise.shape}, mu {mu.shape}, cond {cond.shape} must be one shape")
    mask = np.ones((2, 1, noise.shape[1]), np.float32)
    pair_mu, pair_cond, pair_speaker = (
        np.stack([array, np.zeros_like(array)]) for array in (mu, cond, speaker)
    )

    def slope_at(x: Floats, t: np.float32) -> Floats:
        rate = _guidance(preset, t)
        rows = 2 if rate else 1
        v = velocity(
            np.stack([x] * rows),
            mask[:rows],
            pair_mu[:rows],
            np.full(rows, t, np.float32),
            pair_speaker[:rows],
            pair_cond[:rows],
        )  # [rows, 80, T]
        slope: Floats = v[0]
        if rate:
            slope = np.float32(1.0 + rate) * v[0] - np.float32(rate) * v[1]
        return slope

    tableau = METHODS[preset.method]
    x = noise.astype(np.float32)
    for t, dt in _walk(preset.grid):
        slopes: list[Floats] = []
        for time, weights in zip(_times(tableau, t, dt), tableau.inner, strict=True):
            slopes.append(slope_at(_moved(x, dt, weights, slopes), time))
        x = _moved(x, dt, tableau.outer, slopes)
    return x


def _guidance(preset: SolverPreset, t: np.float32) -> float:
    """The rate at time `t`."""
    first, last = preset.guidance_range
    return preset.guidance_rate if first <= t <= last else 0.0


def _times(tableau: Tableau, t: np.float32, dt: np.float32) -> list[np.float32]:
    """Where the slopes of a step are taken."""
    return [np.float32(t + np.float32(node) * dt) for node in tableau.nodes]


def _moved(x: Floats, dt: np.float32, weights: Sequence[float], slopes: Sequence[Floats]) -> Floats:
    """`x` after `dt` along the weighted sum of `slopes`."""
    used = [
        np.float32(weight) * slope for weight, slope in zip(weights, slopes, strict=True) if weight
    ]
    if not used:
        return x
    moved: Floats = x + dt * sum(used[1:], start=used[0])
    return moved


def _walk(times: Sequence[float] | Floats) -> list[tuple[np.float32, np.float32]]:
    """(t, dt) of each step, accumulated as the original does, in float32."""
    grid = np.asarray(times, np.float32)
    t, dt = grid[0], grid[1] - grid[0]
    pairs = []
    for step in range(1, len(grid)):
        pairs.append((np.float32(t), np.float32(dt)))
        t = t + dt
        if step + 1 < len(grid):
            dt = grid[step + 1] - t
    return pairs


def _read_only(array: Floats) -> Floats:
    array.flags.writeable = False
    return array
