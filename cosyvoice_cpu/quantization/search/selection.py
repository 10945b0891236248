"""What a candidate measured, whether it can be taken, and which of several is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import geometric_mean

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.quantization.search.candidate import ComponentPlan

_SPECTRUM_DB = 3.0
_TIE = 1.03  # a lead of less is noise


@dataclass(frozen=True)
class CandidateResult:
    """A candidate that was made and measured."""

    plan: ComponentPlan
    results: list[QualityResult] = field(default_factory=list)  # empty without anything to measure
    speedup: float | None = None  # float32 time / its time
    slow: dict[str, float] = field(default_factory=dict)  # restored to float32; how fast they were
    sensitive: dict[str, float] = field(default_factory=dict)  # restored; SQNR in dB of each alone
    missing: str | None = None  # what is not installed here and would be needed

    @property
    def shortfall_db(self) -> float:
        """How far the results are behind their limits, at most; 0 or less if all pass.

        Of SQNRs; a spectrum that is too different counts as 3 dB.
        """
        short = [r.limit - r.value for r in self.results if r.bound == "at_least"]
        others = [_SPECTRUM_DB for r in self.results if r.bound == "at_most" and not r.passed]
        return max([*short, *others], default=0.0)

    def refusal(self, min_speedup: float) -> str | None:
        """Why the component can't be this, None if it can."""
        if self.missing:
            return self.missing
        if self.speedup is None:
            return f"no layer is {min_speedup:g} times as fast as in float32 here"
        for result in self.results:
            if not result.passed:
                return f"{result.measure} is {result.value:g}, the limit is {result.limit:g}"
        if self.speedup < min_speedup:
            return f"not faster than float32 on this machine ({self.speedup:.2f} times)"
        return None


def with_pooled_speeds(results: Sequence[CandidateResult]) -> list[CandidateResult]:
    """The results with one speed for all whose layers have the same kernels: the geometric mean.

    Smoothing changes values alone, so such candidates run the same kernels and their times differ
    by noise.
    """
    pooled = []
    for result in results:
        like = [r.speedup for r in results if r.speedup and r.plan.layers == result.plan.layers]
        pooled.append(replace(result, speedup=geometric_mean(like)) if result.speedup else result)
    return pooled


def fastest(results: Sequence[CandidateResult], min_speedup: float) -> CandidateResult | None:
    """The fastest of those that can be taken, None if there is none.

    Of those that are as fast within the noise, the one that is best within its limits.
    """
    good = [result for result in results if result.refusal(min_speedup) is None]
    most = max((result.speedup or 0.0 for result in good), default=0.0)
    as_fast = [result for result in good if (result.speedup or 0.0) * _TIE >= most]
    return min(as_fast, key=lambda result: result.shortfall_db, default=None)
