"""Plans components as recipes say, fitted to what calibration items show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.quantization.calibration import calibration_items, split_items
from cosyvoice_cpu.quantization.component import ComponentPlan, plan_component
from cosyvoice_cpu.quantization.findings import Arrays, Findings, digest_of, item_digest
from cosyvoice_cpu.quantization.folds import Smoothing, folds_of, smoothing_arrays, smoothing_of
from cosyvoice_cpu.quantization.observe import observe, observed_layers
from cosyvoice_cpu.quantization.players import graph_for
from cosyvoice_cpu.quantization.ranges import calibration_for
from cosyvoice_cpu.quantization.recipe import ComponentRecipe
from cosyvoice_cpu.quantization.smooth import find_smoothing
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

Progress = Callable[[str, float], None]
"""(what is under way, share of it that is done, 0..1)."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What candidates are made from and measured on."""

    reference: BundleStages  # the float32 bundle's
    calibration: Sequence[Utterance]  # candidates may be fitted to these
    held_out: Sequence[Utterance]  # and are measured on these
    findings: Findings
    tell: Progress

    @property
    def source(self) -> Bundle:
        """The float32 bundle."""
        return self.reference.bundle


def materials_for(
    source: Bundle, calibration: Path | None, threads: int, tell: Progress
) -> Materials:
    """What a folder of text/audio pairs gives, or the project's own, or random ids.

    Raises: UsageError for a folder that can't serve.
    """
    reference = BundleStages(source, threads)
    items = calibration_items(
        reference, calibration, lambda done: tell("preparing calibration data", done)
    )
    return Materials(reference, *split_items(items), Findings(source.manifest), tell)


class Planner:
    """Looks at calibration items when a recipe asks for it, and remembers what it saw."""

    def __init__(self, materials: Materials) -> None:
        self._materials, self._source = materials, materials.source

    def plan(
        self, name: ComponentName, part: ComponentRecipe, put_back: Collection[str] = ()
    ) -> ComponentPlan:
        """What `part` makes of a component, fitted to the calibration items, without `put_back`."""
        smoothing = self._smoothing(name, part)
        plan = plan_component(self._source, name, part, smoothing=smoothing, put_back=put_back)
        calibration = calibration_for(
            self._source,
            plan,
            self._materials.calibration,
            self._materials.findings,
            self._materials.reference.threads,
            lambda done: self._materials.tell(f"{name}: observing activations", done),
        )
        if calibration is None:
            return plan
        return plan_component(
            *(self._source, name, part),
            smoothing=smoothing,
            calibration=calibration,
            put_back=put_back,
        )

    def _smoothing(self, name: ComponentName, part: ComponentRecipe) -> Smoothing | None:
        """The scales that calibration finds, None if the recipe asks for none."""
        if part.smooth is None:
            return None
        materials = self._materials
        fitted_to = [item_digest(item) for item in materials.calibration]
        plan = plan_component(self._source, name, part)
        graph = graph_for(self._source, name, materials.calibration[0])
        folds = folds_of(name, graph, plan.floats)
        strength = None if part.smooth.strength == "search" else part.smooth.strength

        def watch() -> Arrays:
            tell = partial(materials.tell, f"{name}: observing activations")
            return observe(materials.reference, name, materials.calibration, tell)

        def find() -> Arrays:
            seen = materials.findings.arrays(f"observed-{digest_of(name, fitted_to)[:32]}", watch)
            tell = partial(materials.tell, f"{name}: evening out channels")
            found = find_smoothing(
                plan.floats, plan.layers, folds, observed_layers(seen), strength, tell
            )
            return smoothing_arrays(found)

        key = digest_of(name, part, fitted_to)[:32]
        return smoothing_of(folds, materials.findings.arrays(f"smoothing-{key}", find))
