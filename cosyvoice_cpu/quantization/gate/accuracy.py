"""The quality gate: the quantized engines against the float32 bundle, on the same inputs.

Every measure is taken on every item and the worst counts. Same tokens in both systems, so that
one early difference of the speech LM does not turn the rest into another utterance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult
from cosyvoice_cpu.errors import GateRefusedError
from cosyvoice_cpu.evaluation.distances import MOST_DB
from cosyvoice_cpu.evaluation.parity.outputs import GATE_MEASURES, Bound, Outputs
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache, utterance_digest
from cosyvoice_cpu.stage_api import FlowCondition, Stages
from cosyvoice_cpu.utterances import Utterance

_CONDITION = ("mu", "cond", "speaker")


class QualityRefusedError(GateRefusedError):
    """The gate refused; `results` say what was measured."""

    def __init__(self, results: Sequence[QualityResult]) -> None:
        failed = [result for result in results if not result.passed]
        facts = "; ".join(
            f"{_subject(result)} {result.measure} is {result.value:.3g}, "
            f"{result.bound.replace('_', ' ')} {result.limit:g} is needed"
            for result in failed
        )
        super().__init__(
            f"the quality gate refused: {facts}",
            "nothing was written; try another recipe or --recipe auto, or override with --force",
        )
        self.results = list(results)


def _subject(result: QualityResult) -> str:
    """What was judged."""
    if result.preset is not None:
        return f"the preset {result.preset}:"
    return result.component or "the speech"


def reference_outputs(
    reference: Stages,
    item: Utterance,
    component: ComponentName,
    cache: MeasurementCache,
) -> Outputs:
    """What float32 makes of `item`, as far as the measures of `component` need it."""
    names = {measure.output for measure in GATE_MEASURES if measure.component == component}
    follows_flow = component != "speech_lm"
    names |= {"mel", "source"} if follows_flow else set()

    def compute() -> dict[str, NDArray[np.generic]]:
        outputs = Outputs(reference, item)
        found: dict[str, NDArray[np.generic]] = {name: getattr(outputs, name) for name in names}
        if follows_flow:
            condition = outputs.condition
            found |= {"mu": condition["mu"], "cond": condition["cond"]}
            found["speaker"] = condition["speaker"]
        return found

    arrays = cache.arrays(f"reference-{component}-{utterance_digest(item)}", compute)
    known: dict[str, object] = {name: arrays[name] for name in names - {"mu", "speaker"}}
    if follows_flow:
        mu, cond, speaker = (np.asarray(arrays[name], np.float32) for name in _CONDITION)
        known["condition"] = FlowCondition(mu=mu, cond=cond, speaker=speaker)
    return Outputs(reference, item, known=known)


def measure(want: Outputs, got: Outputs, component: ComponentName) -> dict[str, float]:
    """The measures of `component`; a value that is not finite counts as the worst there is."""
    return {
        measure.name: float(
            np.clip(
                measure.value(getattr(got, measure.output), getattr(want, measure.output)),
                -MOST_DB,
                MOST_DB,
            )
        )
        for measure in GATE_MEASURES
        if measure.component == component
    }


def worst_results(
    component: ComponentName, values: Sequence[Mapping[str, float]], limits: Mapping[str, float]
) -> list[QualityResult]:
    """The worst of the `values` of all items beside the limits."""
    results = []
    for entry in GATE_MEASURES:
        if entry.component == component:
            choose = min if entry.bound == "at_least" else max
            worst = choose(value[entry.name] for value in values)
            limit = limits[entry.name]
            results.append(quality_result(component, entry.name, worst, entry.bound, limit))
    return results


def gate(
    reference: Stages,
    quantized: Stages,
    items: Sequence[Utterance],
    limits: Mapping[ComponentName, Mapping[str, float]],
) -> list[QualityResult]:
    """What the measures of the components in `limits` say."""
    pairs = []
    for item in items:
        want = Outputs(reference, item)
        pairs.append((want, Outputs(quantized, item, want)))
    return [
        result
        for component in limits
        for values in [[measure(*pair, component) for pair in pairs]]
        for result in worst_results(component, values, limits[component])
    ]


def quality_result(
    component: ComponentName | None,
    name: str,
    value: float,
    bound: Bound,
    limit: float,
    preset: str | None = None,
) -> QualityResult:
    """A value and its limit as the manifest keeps them."""
    return QualityResult(
        component=component,
        preset=preset,
        measure=name,
        value=round(value, 3),
        bound=bound,
        limit=limit,
        passed=value >= limit if bound == "at_least" else value <= limit,
    )
