"""Makes quantized forms of a bundle's components in the writer's hidden folder, and tries them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cached_property, partial

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.evaluation.parity.outputs import Outputs
from cosyvoice_cpu.quantization.component import (
    ComponentPlan,
    component_folder,
    plan_component,
    write_component,
)
from cosyvoice_cpu.quantization.findings import digest_of, item_digest
from cosyvoice_cpu.quantization.gate import judge_worst, measure, reference_outputs
from cosyvoice_cpu.quantization.layer_timing import layer_speedups
from cosyvoice_cpu.quantization.planner import Materials, Planner
from cosyvoice_cpu.quantization.search import Attempt, Candidate
from cosyvoice_cpu.quantization.sensitivity import PLAYED, measure_sensitivity, worst_layers
from cosyvoice_cpu.quantization.timing import speedup_of
from cosyvoice_cpu.quantization.trial import trial_bundle
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

_MARGIN_DB = 1.0  # that putting layers back is to bring beyond the limit: sums are estimates
_FEW = 0.25  # of the layers; a candidate that needs more is the wrong one


class Workshop:
    """One candidate of a component at a time: its files lie where the new bundle's shall be."""

    def __init__(self, materials: Materials, writer: BundleWriter) -> None:
        self._materials, self._writer = materials, writer
        self._source = materials.source
        self._threads = materials.reference.threads
        self._planner = Planner(materials)
        self._written: dict[ComponentName, ComponentPlan] = {}

    def attempt(
        self, name: ComponentName, candidate: Candidate, least_speedup: float | None
    ) -> Attempt:
        """Make and measure a candidate; nothing is made if all that would be measured is known.

        With `least_speedup` layers that gain less go back to float32 first, and if the gate refuses
        the rest, so do the few that cost most quality. None keeps all.
        """
        if least_speedup is None:
            return self._measured(Attempt(candidate, self._planner.plan(name, candidate.part)))
        try:
            plan = self._planner.plan(name, candidate.part)
        except MissingExtraError as error:  # there may be others to choose from
            plan = plan_component(self._source, name, candidate.part)
            return Attempt(candidate, plan, missing=f"{error.what}; {error.hint}")
        slow = self._slow_layers(candidate, plan, least_speedup)
        if len(slow) == len(plan.layers):
            return Attempt(candidate, plan, slow=slow)
        if slow:
            plan = self._planner.plan(name, candidate.part, put_back=slow)
        attempt = self._measured(Attempt(candidate, plan, slow=slow))
        if attempt.shortfall_db <= 0 or name not in PLAYED:
            return attempt
        return self._relieved(attempt) or attempt

    def _measured(self, attempt: Attempt) -> Attempt:
        """With its quality on the held-out items and its speed."""
        materials, plan = self._materials, attempt.plan
        trial = _Trial(self, attempt.candidate.recipe, plan)
        key = self.key(attempt)
        values = []
        for count, item in enumerate(materials.held_out):
            self._tell(attempt, "measuring quality", count / len(materials.held_out))
            compute = partial(self._measure, trial, item)
            values.append(materials.findings.values(f"quality-{key}-{item_digest(item)}", compute))
        self._tell(attempt, "measuring speed", 0.0)

        def compare() -> dict[str, float]:
            sides = materials.reference, trial.stages
            return {"speedup": speedup_of(plan.name, sides, materials.held_out[0])}

        speed = materials.findings.values(f"speed-{key}-{self._threads}", compare)
        results = judge_worst(plan.name, values, attempt.candidate.part.limits)
        return replace(attempt, results=results, speedup=speed["speedup"])

    def _slow_layers(
        self, candidate: Candidate, plan: ComponentPlan, least_speedup: float
    ) -> dict[str, float]:
        """The layers that are not `least_speedup` times as fast as in float32."""
        self._tell(Attempt(candidate, plan), "timing layers", 0.0)
        item = self._materials.held_out[0]
        times = self._materials.findings.values(
            f"layers-{self._key(candidate, plan.name)}-{self._threads}",
            lambda: layer_speedups(plan, item, self._threads),
        )
        return {layer: faster for layer, faster in times.items() if faster < least_speedup}

    def _relieved(self, attempt: Attempt) -> Attempt | None:
        """Without the few layers that cost most quality; None if these are not few."""
        plan = attempt.plan
        rows = measure_sensitivity(
            self._materials.reference,
            plan,
            self._materials.calibration[0],
            self._materials.findings,
            lambda done: self._tell(attempt, "measuring each layer", done),
        )
        worst = worst_layers(rows, attempt.shortfall_db + _MARGIN_DB)
        if len(worst) > len(rows) * _FEW:
            return None
        costs = {row.layer: row.sqnr_db for row in rows if row.layer in worst}
        put_back = [*attempt.slow, *worst]
        relieved = self._planner.plan(plan.name, attempt.candidate.part, put_back=put_back)
        return self._measured(replace(attempt, plan=relieved, sensitive=costs))

    def key(self, attempt: Attempt) -> str:
        """Digest of all that decides what a candidate became."""
        put_back = [*attempt.slow, *attempt.sensitive]
        return self._key(attempt.candidate, attempt.plan.name, *put_back)

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

    def _measure(self, trial: _Trial, item: Utterance) -> dict[str, float]:
        reference, findings = self._materials.reference, self._materials.findings
        steps = self._source.manifest.synthesis.solver_steps
        want = reference_outputs(reference, item, steps, trial.plan.name, findings)
        return measure(want, Outputs(trial.stages, item, steps, want), trial.plan.name)

    def _key(self, candidate: Candidate, name: ComponentName, *put_back: str) -> str:
        fitted_to = [item_digest(item) for item in self._materials.calibration]
        return digest_of(name, candidate.part, sorted(put_back), fitted_to)[:32]

    def _tell(self, attempt: Attempt, what: str, done: float) -> None:
        self._materials.tell(f"{attempt.plan.name}, {attempt.candidate.recipe}: {what}", done)


class _Trial:
    """The engines of a candidate, made when something is measured that was not known yet."""

    def __init__(self, workshop: Workshop, recipe: str, plan: ComponentPlan) -> None:
        self._workshop, self._recipe, self.plan = workshop, recipe, plan

    @cached_property
    def stages(self) -> BundleStages:
        return self._workshop.stages(self.plan, self._recipe)
