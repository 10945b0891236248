"""Activation ranges for the kernels that need them: found by FX, or known from an earlier run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.quantization.component import ComponentPlan
from cosyvoice_cpu.quantization.findings import Arrays, Findings, digest_of, item_digest
from cosyvoice_cpu.quantization.kernels import KERNELS
from cosyvoice_cpu.quantization.parameters import (
    Calibration,
    CalibrationReport,
    LayerParameters,
    calibration_text,
)
from cosyvoice_cpu.utterances import Utterance

_REPORT = "report"  # beside the weight scales, which are named as the layers


def calibration_for(
    bundle: Bundle,
    plan: ComponentPlan,
    items: Sequence[Utterance],
    findings: Findings,
    threads: int,
    progress: Callable[[float], None],
) -> Calibration | None:
    """Parameters of the layers of `plan` whose kernels are calibrated; None if there are none.

    Raises: MissingExtraError without torch, UsageError for a layer that can't be calibrated.
    """
    layers = [layer for layer, form in plan.layers.items() if KERNELS[form.kernel].calibrated]
    activations = plan.recipe.activations
    if not layers or activations is None:
        return None

    def compute() -> Arrays:
        from cosyvoice_cpu.quantization.fx.calibrate import calibrate  # torch

        found = calibrate(
            bundle,
            plan.name,
            layers,
            activations,
            items,
            weights=plan.floats,
            threads=threads,
            progress=progress,
        )
        report = np.frombuffer(calibration_text(plan.name, found), np.uint8)
        scales = {layer: found.layers[layer].weight_scale for layer in layers}
        return {_REPORT: report, **scales}

    seen = [item_digest(item) for item in items]
    key = digest_of(plan.name, plan.recipe, layers, seen)[:32]
    return _calibration(findings.arrays(f"ranges-{key}", compute))


def _calibration(arrays: Arrays) -> Calibration:
    report = msgspec.json.decode(arrays[_REPORT].tobytes(), type=CalibrationReport)
    layers = {
        name: LayerParameters(
            minimum=seen.minimum,
            maximum=seen.maximum,
            scale=seen.scale,
            zero_point=seen.zero_point,
            weight_scale=arrays[name].astype(np.float32),
        )
        for name, seen in report.layers.items()
    }
    return Calibration(report.method, report.observer, report.items, layers)
