"""Makes quantized forms of a bundle's components in the writer's hidden folder, and tries them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.evaluation.parity import Outputs
from cosyvoice_cpu.evaluation.parity_items import Item
from cosyvoice_cpu.quantization.component import (
    ComponentPlan,
    component_folder,
    plan_component,
    write_component,
)
from cosyvoice_cpu.quantization.findings import Findings, digest_of, item_digest
from cosyvoice_cpu.quantization.gate import judge_worst, measure, reference_outputs
from cosyvoice_cpu.quantization.layer_timing import layer_speedups
from cosyvoice_cpu.quantization.ranges import calibration_for
from cosyvoice_cpu.quantization.recipe import ComponentRecipe
from cosyvoice_cpu.quantization.search import Attempt, Candidate
from cosyvoice_cpu.quantization.timing import speedup_of
from cosyvoice_cpu.quantization.trial import trial_bundle
from cosyvoice_cpu.runtime.stages import BundleStages

Progress = Callable[[str, float], None]
"""(what is under way, share of it that is done, 0..1)."""


@dataclass(frozen=True, eq=False)
class Materials:
    """What candidates are made from and measured on."""

    reference: BundleStages  # the float32 bundle's
    calibration: Sequence[Item]  # candidates may be fitted to these
    held_out: Sequence[Item]  # and are measured on these
    findings: Findings
    tell: Progress

    @property
    def source(self) -> Bundle:
        """The float32 bundle."""
        return self.reference.bundle


class Workshop:
    """One candidate of a component at a time: its files lie where the new bundle's shall be."""

    def __init__(self, materials: Materials, writer: BundleWriter) -> None:
        self._materials, self._writer = materials, writer
        self._source = materials.source
        self._threads = materials.reference.threads
        self._written: dict[ComponentName, ComponentPlan] = {}

    def plan(
        self, name: ComponentName, part: ComponentRecipe, put_back: Collection[str] = ()
    ) -> ComponentPlan:
        """What `part` makes of a component, fitted to the calibration items, without `put_back`."""
        plan = plan_component(self._source, name, part, put_back=put_back)
        calibration = calibration_for(
            self._source,
            plan,
            self._materials.calibration,
            self._materials.findings,
            self._threads,
            lambda done: self._materials.tell(f"{name}: observing activations", done),
        )
        if calibration is None:
            return plan
        return plan_component(
            self._source,
            name,
            part,
            calibration=calibration,
            floats=plan.floats,
            put_back=put_back,
        )

    def attempt(
        self, name: ComponentName, candidate: Candidate, least_speedup: float | None
    ) -> Attempt:
        """Make and measure a candidate; nothing is made if all that would be measured is known.

        Layers that gain less than `least_speedup` go back to float32 first; None keeps all.
        """
        findings, item = self._materials.findings, self._materials.held_out[0]
        plan = self.plan(name, candidate.part)
        slow: dict[str, float] = {}
        if least_speedup is not None:
            self._tell(candidate, name, "timing layers", 0.0)
            times = findings.values(
                f"layers-{self._key(candidate, name)}-{self._threads}",
                lambda: layer_speedups(plan, item, self._threads),
            )
            slow = {layer: faster for layer, faster in times.items() if faster < least_speedup}
            if len(slow) == len(plan.layers):
                return Attempt(candidate, plan, [], None, slow)
            if slow:
                plan = self.plan(name, candidate.part, put_back=slow)
        trial = _Trial(self, candidate.recipe, plan)
        key = self._key(candidate, name, *slow)
        values = []
        for count, held_out in enumerate(self._materials.held_out):
            done = count / len(self._materials.held_out)
            self._tell(candidate, name, "measuring quality", done)
            compute = partial(self._measure, trial, held_out)
            values.append(findings.values(f"quality-{key}-{item_digest(held_out)}", compute))
        self._tell(candidate, name, "measuring speed", 0.0)
        speed = findings.values(
            f"speed-{key}-{self._threads}",
            lambda: {"speedup": speedup_of(name, (self._materials.reference, trial.stages), item)},
        )
        results = judge_worst(name, values, candidate.part.limits)
        return Attempt(candidate, plan, results, speed["speedup"], slow)

    def write(self, plan: ComponentPlan, recipe: str) -> ComponentDraft:
        """The component in the writer's folder, in place of what was there."""
        if self._written.get(plan.name) is not plan:
            self._written.pop(plan.name, None)
            shutil.rmtree(component_folder(self._writer, plan.name))
            draft = write_component(plan, self._source, self._writer, recipe)
            self._written[plan.name] = plan
            return draft
        component = self._source.component(plan.name)
        return ComponentDraft(plan.precision, "onnxruntime", component.shapes, recipe)

    def copy(self, name: ComponentName) -> ComponentDraft:
        """The component as it is in the float32 bundle, in place of what was there."""
        self._written.pop(name, None)
        shutil.rmtree(component_folder(self._writer, name))
        return self._writer.copy_component(self._source, name)

    def stages(self, plan: ComponentPlan, recipe: str) -> BundleStages:
        """The float32 bundle with the component of `plan` in place of its own."""
        self.write(plan, recipe)
        folder = component_folder(self._writer, plan.name)
        trial = trial_bundle(self._source, plan.name, plan.precision, folder)
        return BundleStages(trial, self._threads)

    def _measure(self, trial: _Trial, item: Item) -> dict[str, float]:
        reference, findings = self._materials.reference, self._materials.findings
        steps = self._source.manifest.synthesis.solver_steps
        want = reference_outputs(reference, item, steps, trial.plan.name, findings)
        return measure(want, Outputs(trial.stages, item, steps, want), trial.plan.name)

    def _key(self, candidate: Candidate, name: ComponentName, *put_back: str) -> str:
        """Digest of all that decides what a candidate becomes."""
        fitted_to = [item_digest(item) for item in self._materials.calibration]
        return digest_of(name, candidate.part, sorted(put_back), fitted_to)[:32]

    def _tell(self, candidate: Candidate, name: ComponentName, what: str, done: float) -> None:
        self._materials.tell(f"{name}, {candidate.recipe}: {what}", done)


class _Trial:
    """The engines of a candidate, made when something is measured that was not known yet."""

    def __init__(self, workshop: Workshop, recipe: str, plan: ComponentPlan) -> None:
        self._workshop, self._recipe, self.plan = workshop, recipe, plan

    @cached_property
    def stages(self) -> BundleStages:
        return self._workshop.stages(self.plan, self._recipe)
