"""Measures candidates: quality on the held-out items and speed, in the writer's hidden folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache, partial

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.evaluation.parity.outputs import Outputs
from cosyvoice_cpu.progress import share_of
from cosyvoice_cpu.quantization.gate.accuracy import measure, reference_outputs, worst_results
from cosyvoice_cpu.quantization.measurement_cache import digest_of, utterance_digest
from cosyvoice_cpu.quantization.search.candidate import (
    CandidateBundle,
    ComponentPlan,
    component_draft,
    component_folder,
    write_component,
)
from cosyvoice_cpu.quantization.search.fitting import Inputs, fit
from cosyvoice_cpu.quantization.search.selection import CandidateResult
from cosyvoice_cpu.quantization.search.sensitivity import (
    MEASURED,
    measure_sensitivity,
    worst_layers,
)
from cosyvoice_cpu.quantization.search.timing import layer_speedups, speedup_of
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

_MARGIN_DB = 1.0  # that restoring layers is to bring beyond the limit: sums are estimates
_FEW = 0.25  # of the layers; a candidate that needs more is the wrong one


class CandidateEvaluator:
    """One candidate of a component at a time: its files lie where the new bundle's shall be."""

    def __init__(self, inputs: Inputs, writer: BundleWriter) -> None:
        self._inputs, self._writer = inputs, writer
        self._threads = inputs.reference.threads
        self._written: dict[ComponentName, ComponentPlan] = {}

    def evaluate(self, plan: ComponentPlan, min_speedup: float | None) -> CandidateResult:
        """Fit, write and measure a candidate; nothing is written if all measures are known.

        With `min_speedup` layers that gain less are restored to float32 first, and if the gate
        refuses the rest, so are the few that cost most quality. None restores none.
        """
        if min_speedup is None:
            return self._measured(CandidateResult(fit(plan, self._inputs)))
        try:
            plan = fit(plan, self._inputs)
        except MissingExtraError as error:  # there may be others to choose from
            return CandidateResult(plan, missing=f"{error.what}; {error.hint}")
        slow = self._slow_layers(plan, min_speedup)
        if len(slow) == len(plan.layers):
            return CandidateResult(plan, slow=slow)
        result = self._measured(CandidateResult(plan.restored(slow), slow=slow))
        if result.shortfall_db <= 0 or plan.name not in MEASURED:
            return result
        return self._without_sensitive_layers(result) or result

    def write(self, plan: ComponentPlan) -> ComponentDraft:
        """The component in the writer's folder, in place of what was there."""
        if self._written.get(plan.name) is plan:
            return component_draft(plan, self._inputs.source)
        self._remove(plan.name)
        draft = write_component(plan, self._inputs.source, self._writer)
        self._written[plan.name] = plan
        return draft

    def copy(self, name: ComponentName) -> ComponentDraft:
        """The component as it is in the float32 bundle, in place of what was there."""
        self._remove(name)
        return self._writer.copy_component(self._inputs.source, name)

    def key(self, plan: ComponentPlan) -> str:
        """Digest of all that decides what a candidate becomes."""
        parts = plan.name, plan.recipe, sorted(plan.layers), self._inputs.fitted_digests
        return digest_of(*parts)[:32]

    def _measured(self, result: CandidateResult) -> CandidateResult:
        """With its quality on the held-out items and its speed."""
        inputs, plan = self._inputs, result.plan
        key = self.key(plan)

        @cache
        def stages() -> BundleStages:
            self.write(plan)
            folder = component_folder(self._writer, plan.name)
            return BundleStages(CandidateBundle.of(inputs.source, plan, folder), self._threads)

        def quality(number: int) -> dict[str, float]:
            item = inputs.held_out[number]
            want = reference_outputs(inputs.reference, item, plan.name, inputs.cache)
            return measure(want, Outputs(stages(), item, want), plan.name)

        def speed() -> dict[str, float]:
            systems = inputs.reference, stages()
            return {"speedup": speedup_of(plan.name, systems, inputs.held_out[0])}

        values = []
        for number, item in enumerate(inputs.held_out):
            self._progress(plan, "measuring quality", number / len(inputs.held_out))
            name = f"quality-{key}-{utterance_digest(item)}"
            values.append(inputs.cache.values(name, partial(quality, number)))
        self._progress(plan, "measuring speed", 0.0)
        measured = inputs.cache.values(f"speed-{key}-{self._threads}", speed)
        results = worst_results(plan.name, values, plan.recipe.limits)
        return replace(result, results=results, speedup=measured["speedup"])

    def _slow_layers(self, plan: ComponentPlan, min_speedup: float) -> dict[str, float]:
        """The layers that are not `min_speedup` times as fast as in float32."""
        self._progress(plan, "timing layers", 0.0)
        times = self._inputs.cache.values(
            f"layers-{self.key(plan)}-{self._threads}",
            lambda: layer_speedups(
                plan, self._inputs.reference, self._inputs.held_out[0], self._threads
            ),
        )
        return {layer: faster for layer, faster in times.items() if faster < min_speedup}

    def _without_sensitive_layers(self, result: CandidateResult) -> CandidateResult | None:
        """Without the few layers that cost most quality; None if these are not few."""
        plan = result.plan
        share = share_of(self._inputs.progress, self._title(plan, "measuring each layer"))
        rows = measure_sensitivity(
            self._inputs.reference, plan, self._inputs.fitted[0], self._inputs.cache, share
        )
        worst = worst_layers(rows, result.shortfall_db + _MARGIN_DB)
        if len(worst) > len(rows) * _FEW:
            return None
        costs = {row.layer: row.sqnr_db for row in rows if row.layer in worst}
        return self._measured(replace(result, plan=plan.restored(worst), sensitive=costs))

    def _remove(self, name: ComponentName) -> None:
        self._written.pop(name, None)
        shutil.rmtree(component_folder(self._writer, name))

    def _title(self, plan: ComponentPlan, what: str) -> str:
        return f"{plan.name}, {plan.recipe_name}: {what}"

    def _progress(self, plan: ComponentPlan, what: str, done: float) -> None:
        self._inputs.progress(self._title(plan, what), done)
