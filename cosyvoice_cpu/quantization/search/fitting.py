"""Fits plans to calibration items: scales of channels, ranges of activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import library_error
from cosyvoice_cpu.progress import Progress, share_of
from cosyvoice_cpu.quantization.calibration.activations import by_layer, record_activations
from cosyvoice_cpu.quantization.calibration.pairs import (
    CalibrationItems,
    Random,
    calibration_items,
)
from cosyvoice_cpu.quantization.calibration.scale_folding import (
    Smoothing,
    folds_of,
    smoothing_arrays,
    smoothing_of,
)
from cosyvoice_cpu.quantization.calibration.smoothing import find_smoothing
from cosyvoice_cpu.quantization.kernels.parameters import (
    Calibration,
    CalibrationReport,
    LayerParameters,
    calibration_text,
)
from cosyvoice_cpu.quantization.measurement_cache import (
    Arrays,
    MeasurementCache,
    digest_of,
    utterance_digest,
)
from cosyvoice_cpu.quantization.recipes.recipe import Activations, SmoothingSettings
from cosyvoice_cpu.quantization.search.candidate import ComponentPlan
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

_REPORT = "report"  # beside the weight scales, which are named as the layers


@dataclass(frozen=True, eq=False)
class Inputs:
    """What candidates are made from and measured on."""

    reference: BundleStages  # the float32 bundle's
    items: CalibrationItems
    cache: MeasurementCache
    progress: Progress

    @property
    def source(self) -> Bundle:
        """The float32 bundle."""
        return self.reference.bundle

    @property
    def fitted(self) -> Sequence[Utterance]:
        """Candidates may be fitted to these."""
        return self.items.fitted

    @property
    def held_out(self) -> Sequence[Utterance]:
        """Candidates are measured on these."""
        return self.items.held_out

    @property
    def fitted_digests(self) -> list[str]:
        """Of the items that candidates may be fitted to."""
        return [utterance_digest(item) for item in self.fitted]


def prepare_inputs(
    source: Bundle, calibration: Path | Random | None, threads: int, progress: Progress
) -> Inputs:
    """The float32 engines, and the items of `calibration`, see `calibration_items`.

    Raises: UsageError for calibration data that can't serve.
    """
    reference = BundleStages(source, threads)
    items = calibration_items(
        reference, calibration, share_of(progress, "preparing calibration data")
    )
    return Inputs(reference, items, MeasurementCache(source.manifest), progress)


def fit(plan: ComponentPlan, inputs: Inputs) -> ComponentPlan:
    """`plan` with all that its recipe wants to know of the calibration items.

    Raises: MissingExtraError without torch, UsageError for a layer that can't be calibrated.
    """
    if settings := plan.recipe.smoothing:
        plan = plan.with_smoothing(_smoothing(plan, settings, inputs))
    if (activations := plan.recipe.activations) and plan.calibrated_layers:
        plan = plan.with_calibration(_calibration(plan, activations, inputs))
    return plan


def _smoothing(plan: ComponentPlan, settings: SmoothingSettings, inputs: Inputs) -> Smoothing:
    graph = inputs.source.file(plan.name, plan.graphs[0])
    folds = folds_of(plan.name, graph, plan.floats)
    alpha = None if settings.alpha == "search" else settings.alpha

    def record() -> Arrays:
        share = share_of(inputs.progress, f"{plan.name}: recording activations")
        return record_activations(inputs.reference, plan.name, inputs.fitted, share)

    def find() -> Arrays:
        key = digest_of(plan.name, inputs.fitted_digests)[:32]
        recorded = by_layer(inputs.cache.arrays(f"activations-{key}", record))
        share = share_of(inputs.progress, f"{plan.name}: smoothing channels")
        found = find_smoothing(plan.floats, plan.layers, folds, recorded, alpha, share)
        return smoothing_arrays(found)

    key = digest_of(plan.name, plan.recipe, inputs.fitted_digests)[:32]
    return smoothing_of(folds, inputs.cache.arrays(f"smoothing-{key}", find))


def _calibration(plan: ComponentPlan, activations: Activations, inputs: Inputs) -> Calibration:
    layers = plan.calibrated_layers

    def compute() -> Arrays:
        try:
            from cosyvoice_cpu.quantization.calibration.fx_calibration import calibrate
        except ImportError as error:
            raise library_error(
                error, f"a recipe with fixed activation ranges needs {error.name}"
            ) from None

        found = calibrate(
            inputs.source,
            plan.name,
            layers,
            activations,
            inputs.fitted,
            weights=plan.floats,
            threads=inputs.reference.threads,
            progress=share_of(inputs.progress, f"{plan.name}: observing activations"),
        )
        report = np.frombuffer(calibration_text(plan.name, found, layers), np.uint8)
        return {_REPORT: report, **{layer: found.layers[layer].weight_scale for layer in layers}}

    key = digest_of(plan.name, plan.recipe, inputs.fitted_digests)[:32]
    arrays = inputs.cache.arrays(f"ranges-{key}", compute)
    report = msgspec.json.decode(arrays[_REPORT].tobytes(), type=CalibrationReport)
    return Calibration(
        report.method,
        report.observer,
        report.items,
        {
            name: LayerParameters(
                minimum=seen.minimum,
                maximum=seen.maximum,
                scale=seen.scale,
                zero_point=seen.zero_point,
                weight_scale=arrays[name].astype(np.float32),
            )
            for name, seen in report.layers.items()
        },
    )
