"""Candidates for a component, and which of them stays.

A recipe either says how a component is quantized, which makes one candidate, or names the recipes
to choose from. What is chosen is the fastest that passes the gate; if none passes, or none is
faster than float32 here, the component stays float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.quantization.component import ComponentPlan
from cosyvoice_cpu.quantization.recipe import ComponentRecipe, Recipe, load_recipe

_TIE = 1.03  # a lead of less is noise, so the candidate that is listed first stays


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
    results: list[QualityResult]  # empty if there was nothing to measure
    speedup: float | None  # float32 time / its time
    slow: dict[str, float]  # layers that went back to float32, and how fast they were
    note: str | None = None  # what was decided on the way

    def refusal(self, least_speedup: float) -> str | None:
        """Why the component can't be this, None if it can."""
        if self.speedup is None:
            return f"no layer is {least_speedup:g} times as fast as in float32 here"
        for result in self.results:
            if not result.passed:
                return f"{result.measure} is {result.value:g}, the limit is {result.limit:g}"
        if self.speedup < least_speedup:
            return f"not faster than float32 on this machine ({self.speedup:.2f} times)"
        return None


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


def fastest(attempts: Sequence[Attempt], least_speedup: float) -> Attempt | None:
    """The fastest of those that nothing speaks against, None if there is none."""
    best: Attempt | None = None
    most = 0.0
    for attempt in attempts:
        speedup = attempt.speedup or 0.0
        if attempt.refusal(least_speedup) is None and speedup > most * _TIE:
            best, most = attempt, speedup
    return best
