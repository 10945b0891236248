"""Euler solver of the conditional flow with classifier-free guidance.

Source: CosyVoice cosyvoice/flow/flow_matching.py, CausalConditionalCFM.forward and solve_euler.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import msgspec
import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverPreset


class Velocity(Protocol):
    """The flow estimator: x, mu, cond [B, 80, T], mask [B, 1, T], t [B], speaker [B, 80]."""

    def __call__(
        self, x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
    ) -> Floats:
        """Velocity [B, 80, T]."""
        ...


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


def solver_times(grid: Sequence[float] | Floats) -> Floats:
    """The t that the estimator sees at each step of `grid`, float32 [len(grid) - 1]; read-only.

    The solver accumulates t in float32 instead of reading the grid, and a graph that folds the time
    embedding needs the very same values.
    """
    return _read_only(np.array([t for t, _ in _walk(grid)], np.float32))


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

    Each step asks for a batch of two: row 0 conditioned, row 1 with everything zero but x and t;
    v = (1 + r) v0 - r v1, r the preset's guidance rate within its range and 0 outside. The prompt's
    frames are part of T and are not overwritten while solving. Raises: ValueError if the shapes
    disagree.
    """
    if not noise.shape == mu.shape == cond.shape:
        raise ValueError(f"noise {noise.shape}, mu {mu.shape}, cond {cond.shape} must be one shape")
    mask = np.ones((2, 1, noise.shape[1]), np.float32)
    pair_mu, pair_cond, pair_speaker = (
        np.stack([array, np.zeros_like(array)]) for array in (mu, cond, speaker)
    )
    first, last = preset.guidance_range
    x = noise.astype(np.float32)
    for t, dt in _walk(preset.grid):
        v = velocity(
            np.stack([x, x]), mask, pair_mu, np.full(2, t, np.float32), pair_speaker, pair_cond
        )  # [2, 80, T]
        rate = preset.guidance_rate if first <= t <= last else 0.0
        guided = np.float32(1.0 + rate) * v[0] - np.float32(rate) * v[1]
        x = x + dt * guided
    return x


def _walk(times: Sequence[float] | Floats) -> list[tuple[np.float32, np.float32]]:
    """(t, dt) of each Euler step, accumulated as the original does, in float32."""
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
