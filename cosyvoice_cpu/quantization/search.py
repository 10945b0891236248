"""Candidates for a component, and which of them stays.

A recipe either says how a component is quantized, which makes one candidate, or names the recipes
to choose from. What is chosen is the fastest that passes the gate; if none passes, or none is
faster than float32 here, the component stays float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import geometric_mean

import msgspec

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.quantization.component import ComponentPlan
from cosyvoice_cpu.quantization.recipe import ComponentRecipe, Recipe, load_recipe

_SPECTRUM_DB = 3.0
_TIE = 1.03  # a lead of less is noise


@dataclass(frozen=True)
class Candidate:
    """What the recipe called `recipe` says of a component."""

    recipe: str
    part: ComponentRecipe


@dataclass(frozen=True)
class Attempt:
    """A candidate that was made and measured."""

    candidate: Candidate
    plan: ComponentPlan
    results: list[QualityResult] = field(default_factory=list)  # empty without anything to measure
    speedup: float | None = None  # float32 time / its time
    slow: dict[str, float] = field(default_factory=dict)  # put back to float32; how fast they were
    sensitive: dict[str, float] = field(default_factory=dict)  # put back; SQNR in dB of each alone
    missing: str | None = None  # what is not installed here and would be needed

    @property
    def shortfall_db(self) -> float:
        """How far the results are behind their limits, at most; 0 or less if all pass.

        Of SQNRs; a spectrum that is too different counts as 3 dB.
        """
        short = [r.limit - r.value for r in self.results if r.bound == "at_least"]
        others = [_SPECTRUM_DB for r in self.results if r.bound == "at_most" and not r.passed]
        return max([*short, *others], default=0.0)

    def refusal(self, least_speedup: float) -> str | None:
        """Why the component can't be this, None if it can."""
        if self.missing:
            return self.missing
        if self.speedup is None:
            return f"no layer is {least_speedup:g} times as fast as in float32 here"
        for result in self.results:
            if not result.passed:
                return f"{result.measure} is {result.value:g}, the limit is {result.limit:g}"
        if self.speedup < least_speedup:
            return f"not faster than float32 on this machine ({self.speedup:.2f} times)"
        return None


def chosen_parts(recipe: Recipe, components: Sequence[str]) -> Recipe:
    """The recipe for `components` alone. Raises: UsageError for one that it does not have."""
    if missing := [name for name in components if name not in recipe.names]:
        raise UsageError(
            f"the recipe {recipe.name} has no component {missing[0]!r}",
            f"it has {', '.join(recipe.names)}",
        )
    wanted = set(components) or set(recipe.names)
    return Recipe(
        name=recipe.name,
        about=recipe.about,
        components={name: part for name, part in recipe.components.items() if name in wanted},
        search={name: search for name, search in recipe.search.items() if name in wanted},
        speech=recipe.speech,
    )


def candidates_of(recipe: Recipe, component: ComponentName) -> list[Candidate]:
    """One, or those of the recipe's search with its limits in place of their own.

    Raises: UsageError for a candidate that is no recipe or says nothing of the component.
    """
    if part := recipe.components.get(component):
        return [Candidate(recipe.name, part)]
    search = recipe.search[component]
    found = []
    for name in search.candidates:
        parts = load_recipe(name).components
        if component not in parts:
            raise UsageError(
                f"recipe {recipe.name} searches {component} in {name}, which says nothing of it",
                f"remove {name} from [search.{component}]",
            )
        part = msgspec.structs.replace(parts[component], limits=search.limits)
        found.append(Candidate(name, part))
    return found


def pooled(attempts: Sequence[Attempt]) -> list[Attempt]:
    """The attempts with one speed for all whose layers have the same forms: the geometric mean.

    Smoothing changes values alone, so such attempts run the same kernels and their times differ by
    noise.
    """
    found = []
    for attempt in attempts:
        like = [a.speedup for a in attempts if a.speedup and a.plan.layers == attempt.plan.layers]
        found.append(replace(attempt, speedup=geometric_mean(like)) if attempt.speedup else attempt)
    return found


def fastest(attempts: Sequence[Attempt], least_speedup: float) -> Attempt | None:
    """The fastest of those that nothing speaks against, None if there is none.

    Of those that are as fast within the noise, the one that is best within its limits.
    """
    good = [attempt for attempt in attempts if attempt.refusal(least_speedup) is None]
    most = max((attempt.speedup or 0.0 for attempt in good), default=0.0)
    as_fast = [attempt for attempt in good if (attempt.speedup or 0.0) * _TIE >= most]
    return min(as_fast, key=lambda attempt: attempt.shortfall_db, default=None)
