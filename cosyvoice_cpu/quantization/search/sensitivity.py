"""What each layer costs in quality: the component's output with this layer alone quantized.

Errors of layers add up like powers of noise, so the table also says which layers have to stay
float32 for a component to become better by so many dB.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from cosyvoice_cpu.bundle.atomic import output_error, write_file_atomically
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.evaluation.distances import MOST_DB, sqnr_db
from cosyvoice_cpu.evaluation.plots import COLOURS, Bar, Part, bar_chart
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.progress import Progress, Share, no_progress, share_of
from cosyvoice_cpu.quantization.calibration.altered_graphs import AlteredComponent, GraphCall
from cosyvoice_cpu.quantization.calibration.pairs import Random
from cosyvoice_cpu.quantization.kernels.graph_rewrite import (
    WEIGHT,
    embed_weights,
    quantize_products,
)
from cosyvoice_cpu.quantization.measurement_cache import (
    MeasurementCache,
    digest_of,
    utterance_digest,
)
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe
from cosyvoice_cpu.quantization.search.candidate import ComponentPlan, plan_component
from cosyvoice_cpu.quantization.search.fitting import fit, prepare_inputs
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

MEASURED: tuple[ComponentName, ...] = ("speech_lm", "flow_estimator")
_PROBED = (0, 4, 9)  # first, middle and last of the flow's steps; the speech LM has one call
_TOKENS = 25  # of the prompt and behind it: two seconds show what six do
_OUTPUTS = ("logits", "velocity")
_MOST_DB = 80.0  # at the end of the plot: what is better doesn't matter


@dataclass(frozen=True)
class LayerSensitivity:
    """A row of the table."""

    component: ComponentName
    layer: str
    kernel: str
    sqnr_db: float  # of logits or velocity
    bytes_saved: int


def measure_sensitivity(
    stages: BundleStages,
    plan: ComponentPlan,
    item: Utterance,
    cache: MeasurementCache,
    progress: Share,
) -> list[LayerSensitivity]:
    """Every quantized product of `plan`, the worst first, on the first seconds of `item`.

    `stages` are the float32 bundle's. A smoothed layer has its scales where they are folded.
    """
    short = shortened(item)
    layers = [layer for layer in plan.layers if len(plan.floats[layer + WEIGHT].shape) == 2]
    want: list[GraphCall] = []
    rows = []
    for count, layer in enumerate(layers):

        def compute(layer: str = layer) -> dict[str, float]:
            if not want:
                calls = AlteredComponent(stages.bundle, plan.name, stages.threads).run(short)
                want.extend(calls[step] for step in _PROBED if step < len(calls))
            alter = partial(_quantize_one, plan, layer, plan.source_weights)
            component = AlteredComponent(
                stages.bundle, plan.name, stages.threads, alter, prepack=True
            )
            got = component.again(want)
            return {"sqnr_db": max(_difference(got, want), -MOST_DB)}

        given = (plan.recipe, plan.layers[layer], utterance_digest(short))
        key = digest_of(plan.name, layer, *given)[:32]
        value = cache.values(f"sensitivity-{key}", compute)["sqnr_db"]
        packed = sum(weight.num_bytes for weight in plan.packed(layer).values())
        saved = plan.floats[layer + WEIGHT].num_bytes - packed
        kernel = plan.layers[layer].kernel
        rows.append(LayerSensitivity(plan.name, layer, kernel, value, saved))
        progress((count + 1) / len(layers))
    return sorted(rows, key=lambda row: row.sqnr_db)


def worst_layers(rows: Sequence[LayerSensitivity], gain_db: float) -> list[str]:
    """The fewest layers without which the sum of all errors is smaller by `gain_db`."""
    powers = {row.layer: 10 ** (-row.sqnr_db / 10) for row in rows}
    left = sum(powers.values())
    goal = left * 10 ** (-gain_db / 10)
    chosen = []
    for layer in sorted(powers, key=lambda layer: -powers[layer]):
        if left <= goal:
            break
        chosen.append(layer)
        left -= powers[layer]
    return chosen


def shortened(item: Utterance) -> Utterance:
    """The last second of the prompt and the first behind it."""
    prompt = item.prompt_tokens[-_TOKENS:]
    per_token = len(item.prompt_mel) // max(len(item.prompt_tokens), 1)
    return replace(
        item,
        prompt_tokens=prompt,
        tokens=item.tokens[:_TOKENS],
        prompt_mel=item.prompt_mel[len(item.prompt_mel) - len(prompt) * per_token :],
    )


def _difference(got: Sequence[GraphCall], want: Sequence[GraphCall]) -> float:
    """SQNR over all calls together."""
    arrays = [
        np.concatenate([call.outputs[name].reshape(-1) for call in calls])
        for calls in (got, want)
        for name in _OUTPUTS
        if name in calls[0].outputs
    ]
    return sqnr_db(arrays[0], arrays[1])


def _quantize_one(
    plan: ComponentPlan, layer: str, floats: Mapping[str, Weight], model: onnx.ModelProto
) -> None:
    """Compute one product in its kernel; its integers go into the model, not into a file."""
    changed = plan.packed(layer)
    if plan.smoothing:
        smooth = plan.smoothing.around(layer).applied(floats)
        moved = {key: weight for key, weight in smooth.items() if weight is not floats[key]}
        changed = moved | changed
    quantize_products(model, {layer: plan.layers[layer]})
    embed_weights(model, changed)


def write_sensitivity(
    bundle: Path,
    folder: Path,
    *,
    recipe: str,
    components: Sequence[str] = (),
    calibration: Path | Random | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> list[LayerSensitivity]:
    """Measure every layer that `recipe` quantizes by itself; tables and a plot go to `folder`.

    Writes `sensitivity.md`, `.csv` and `.svg`. Of a searched component the first candidate counts.
    What an interrupted run had measured is not measured again.
    Raises: UsageError, BundleError, OutputError.
    """
    chosen = load_recipe(recipe).restricted_to(components)
    inputs = prepare_inputs(open_bundle(bundle), calibration, threads, progress)
    rows: list[LayerSensitivity] = []
    for name in chosen.names:
        if name not in MEASURED:
            continue
        recipe_name, part = next(iter(chosen.candidates(name).items()))
        plan = fit(plan_component(inputs.source, name, part, recipe_name), inputs)
        share = share_of(progress, f"{name}: measuring each layer")
        rows += measure_sensitivity(inputs.reference, plan, inputs.fitted[0], inputs.cache, share)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    title = f"SQNR with one layer quantized, recipe {chosen.name}"
    for suffix, text in ((".md", to_markdown(rows)), (".csv", to_csv(rows))):
        write_file_atomically(folder / f"sensitivity{suffix}", text.encode())
    write_file_atomically(folder / "sensitivity.svg", to_svg(rows, title).encode())
    inputs.cache.clear()
    return rows


def to_markdown(rows: Sequence[LayerSensitivity]) -> str:
    """A table, the worst layer of each component first."""
    lines = [
        "| component | layer | kernel | SQNR, dB | saves, MB |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {row.component} | {row.layer} | {row.kernel} | {row.sqnr_db:.1f} "
        f"| {row.bytes_saved / 1e6:.2f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def to_csv(rows: Sequence[LayerSensitivity]) -> str:
    """The same with full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["component", "layer", "kernel", "sqnr_db", "bytes_saved"])
    for row in rows:
        writer.writerow([row.component, row.layer, row.kernel, row.sqnr_db, row.bytes_saved])
    return text.getvalue()


def to_svg(rows: Sequence[LayerSensitivity], title: str) -> str:
    """A bar per layer: short bars are what costs quality."""
    bars = [
        Bar(
            f"{row.component.removesuffix('_estimator')} {row.layer}",
            [Part(row.sqnr_db, COLOURS[row.component.removesuffix("_estimator")])],
            f"{row.sqnr_db:.1f}",
        )
        for row in rows
    ]
    return bar_chart(
        title, bars, ticks=(0, 20, 40, 60, 80), unit=" dB", longest=_MOST_DB, thickness=11
    )
