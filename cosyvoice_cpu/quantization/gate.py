"""The quality gate: the quantized engines against the float32 bundle, on the same inputs.

Every measure is taken on every item and the worst counts. Same tokens on both sides, so that one
early difference of the speech LM does not turn the rest into another utterance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult
from cosyvoice_cpu.errors import GateRefusedError
from cosyvoice_cpu.evaluation.parity import GATE_MEASURES, Bound, Outputs
from cosyvoice_cpu.evaluation.parity_items import Item
from cosyvoice_cpu.evaluation.parity_measures import MOST_DB
from cosyvoice_cpu.stages import Stages


class QualityRefusedError(GateRefusedError):
    """The gate refused; `results` say what was measured."""

    def __init__(self, results: Sequence[QualityResult]) -> None:
        failed = [result for result in results if not result.passed]
        facts = "; ".join(
            f"{result.component} {result.measure} is {result.value:.1f}, "
            f"{result.bound.replace('_', ' ')} {result.limit:g} is needed"
            for result in failed
        )
        super().__init__(
            f"the quality gate refused: {facts}",
            "nothing was written; try another recipe or --recipe auto, or override with --force",
        )
        self.results = list(results)


def gate(
    reference: Stages,
    quantized: Stages,
    items: Sequence[Item],
    limits: Mapping[ComponentName, Mapping[str, float]],
    steps: int,
    progress: Callable[[float], None],
) -> list[QualityResult]:
    """What the measures of the components in `limits` say; `steps` of the solver.

    A value that is not finite counts as the worst there is.
    """
    measures = [measure for measure in GATE_MEASURES if measure.component in limits]
    worst: dict[str, float] = {}
    for count, item in enumerate(items):
        want = Outputs(reference, item, steps)
        got = Outputs(quantized, item, steps, want)
        for measure in measures:
            difference = measure.value(getattr(got, measure.output), getattr(want, measure.output))
            value = float(np.clip(difference, -MOST_DB, MOST_DB))
            choose = min if measure.bound == "at_least" else max
            worst[measure.name] = choose(worst.get(measure.name, value), value)
        progress((count + 1) / len(items))
    return [
        _result(measure.component, measure.name, worst[measure.name], measure.bound, limit)
        for measure in measures
        for limit in [limits[measure.component][measure.name]]
    ]


def _result(
    component: ComponentName,
    measure: str,
    value: float,
    bound: Bound,
    limit: float,
) -> QualityResult:
    passed = value >= limit if bound == "at_least" else value <= limit
    return QualityResult(
        component=component,
        measure=measure,
        value=round(value, 3),
        bound=bound,
        limit=limit,
        passed=passed,
    )
