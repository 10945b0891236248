"""Solvers that `quantize --recipe fast` tries: fewer evaluations, guidance in a part of the time.

`export` makes the flow estimator's table for their times, so that the search needs the bundle
alone. Which of them sounds as good as the default depends on the model, so none is a preset before
it was judged (docs/quality.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from cosyvoice_cpu.bundle.manifest import PromptFrames, SolverMethod, SolverPreset
from cosyvoice_cpu.decoding.solver import cosine_preset, evaluation_times, time_grid

EXACT_STEPS = 10  # of the fourth order, on the cosine grid: 0.05 dB of mel from twice as many


@dataclass(frozen=True)
class Candidate:
    """What differs from a bundle's default preset; the rate of guidance does not."""

    method: SolverMethod
    grid: Sequence[float]  # ascending from 0 to 1
    guidance_range: tuple[float, float] = (0.0, 1.0)
    prompt: PromptFrames = "solved"

    def preset(self, default: SolverPreset) -> SolverPreset:
        """The candidate as a preset of a bundle with this default."""
        return SolverPreset(
            method=self.method,
            steps=len(self.grid) - 1,
            grid=list(self.grid),
            guidance_rate=default.guidance_rate,
            guidance_range=self.guidance_range,
            prompt=self.prompt,
        )


def _cosine(steps: int) -> list[float]:
    return [float(t) for t in time_grid(steps)]


# Guidance at the very start, where x is all noise, and near the end moves the mel away from the
# exact solution, so it is left out there in some (docs/decisions.md). A cached prompt costs no
# evaluation at all once it is there.
CANDIDATES: Final[Mapping[str, Candidate]] = {
    "euler-10-cached": Candidate("euler", _cosine(10), prompt="cached"),
    "euler-6": Candidate("euler", _cosine(6)),
    "midpoint-3": Candidate("midpoint", _cosine(3)),
    "euler-5": Candidate("euler", _cosine(5)),
    "euler-5-guided-0.03-1": Candidate("euler", _cosine(5), (0.03, 1.0)),
    "midpoint-3-guided-0.05-0.4": Candidate("midpoint", _cosine(3), (0.05, 0.4)),
    "euler-4": Candidate("euler", _cosine(4)),
    "midpoint-2": Candidate("midpoint", _cosine(2)),
    "euler-5-guided-0.05-0.6": Candidate("euler", _cosine(5), (0.05, 0.6)),
    "euler-5-guided-0.05-0.6-cached": Candidate("euler", _cosine(5), (0.05, 0.6), "cached"),
    "midpoint-2-guided-0.05-0.5": Candidate("midpoint", _cosine(2), (0.05, 0.5)),
}


def exact_preset(default: SolverPreset) -> SolverPreset:
    """A solver whose own error is far below the differences between those that are used."""
    fine = cosine_preset(default, EXACT_STEPS)
    return msgspec.structs.replace(fine, method="rk4", guidance_range=(0.0, 1.0))


def searched_times(default: SolverPreset) -> list[float]:
    """All times that the default, the candidates and the exact solution ask for; ascending."""
    candidates = [candidate.preset(default) for candidate in CANDIDATES.values()]
    return evaluation_times([default, exact_preset(default), *candidates])
