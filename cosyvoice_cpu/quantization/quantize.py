"""From a float32 bundle to a quantized one, or to a refusal.

    plan ─> integer weights and graphs in the writer's hidden folder ─> gate, timing ─> rename

Nothing of the checkpoint is needed. Weights are read from the mapped bundle one tensor at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest, Quality
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.quantization.auto import judged
from cosyvoice_cpu.quantization.calibration import calibration_items
from cosyvoice_cpu.quantization.component import (
    ComponentPlan,
    component_folder,
    plan_component,
    write_component,
)
from cosyvoice_cpu.quantization.gate import QualityRefusedError, gate
from cosyvoice_cpu.quantization.recipe import AUTO, DEFAULT, Recipe, load_recipe
from cosyvoice_cpu.quantization.report import ComponentReport, QuantizationReport
from cosyvoice_cpu.quantization.timing import speedup_of
from cosyvoice_cpu.runtime.stages import BundleStages

Progress = Callable[[str, float], None]
"""(what is under way, share of it that is done, 0..1)."""

_SMALLEST_FREE_BYTES = 40_000_000  # on the output's disk, above what the weights take


def quantize_bundle(
    bundle: Path,
    output: Path,
    *,
    recipe: str = AUTO,
    components: Sequence[str] = (),
    calibration: Path | None = None,
    dry_run: bool = False,
    force: bool = False,
    overwrite: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> QuantizationReport:
    """Quantize the float32 `bundle` into a new one at `output`.

    `recipe` is one of the package's, a path that ends in `.toml`, or "auto": the default recipe,
    where a component that fails the gate or is not faster than float32 on this machine goes back
    to float32. `components` picks among the recipe's, all by default. `calibration` is a folder of
    text/audio pairs. `dry_run` plans and writes nothing. `force` writes what the gate refused and
    marks it so.
    Raises: QualityRefusedError (nothing is written), UsageError, BundleError, ManifestError.
    """
    tell = progress or _say_nothing
    chosen = _choose(load_recipe(DEFAULT if recipe == AUTO else recipe), components)
    tell("checking the bundle", 0.0)
    source = open_bundle(bundle)
    plans = {name: plan_component(source, name, part) for name, part in chosen.components.items()}
    plan = _planned(source, chosen, plans)
    if dry_run:
        return plan
    with BundleWriter(output, overwrite, plan.bytes_after + _SMALLEST_FREE_BYTES) as writer:
        drafts = _write(writer, source, plans, chosen.name, tell)
        trial = writer.preview(**_content(source.manifest, drafts, _NOT_MEASURED))
        sides = BundleStages(source, threads), BundleStages(trial, threads)
        items = calibration_items(
            sides[0], calibration, lambda done: tell("preparing calibration data", done)
        )
        results = gate(
            *sides,
            items,
            {name: part.limits for name, part in chosen.components.items()},
            source.manifest.synthesis.solver_steps,
            lambda done: tell("measuring quality", done),
        )
        tell("measuring speed", 0.0)
        reports = [replace(r, speedup=speedup_of(r.name, sides, items[0])) for r in plan.components]
        del sides
        if recipe == AUTO:
            reports = [judged(report, results) for report in reports]
            for report in reports:
                if report.put_back:
                    shutil.rmtree(component_folder(writer, report.name))
                    drafts[report.name] = writer.copy_component(source, report.name)
        back = {report.name for report in reports if report.put_back}
        kept = [result for result in results if result.component not in back]
        refused = not all(result.passed for result in kept)
        if refused and not force:
            raise QualityRefusedError(results)
        tell("digests", 0.0)
        manifest = writer.finish(
            **_content(source.manifest, drafts, Quality(results=kept, forced=refused))
        )
    return replace(
        plan,
        components=[
            replace(report, bytes_after=_bytes(manifest, report.name)) for report in reports
        ],
        results=results,
        items=[item.name for item in items],
        bytes_after=_bytes(manifest),
        forced=refused,
        written=True,
    )


_NOT_MEASURED = Quality(results=[], forced=False)


def _choose(recipe: Recipe, components: Sequence[str]) -> Recipe:
    """The recipe for `components` alone. Raises: UsageError for one that it does not have."""
    if missing := [name for name in components if name not in recipe.components]:
        raise UsageError(
            f"the recipe {recipe.name} has no component {missing[0]!r}",
            f"it has {', '.join(recipe.components)}",
        )
    parts = {n: p for n, p in recipe.components.items() if not components or n in components}
    return Recipe(name=recipe.name, about=recipe.about, components=parts)


def _planned(
    source: Bundle, recipe: Recipe, plans: Mapping[ComponentName, ComponentPlan]
) -> QuantizationReport:
    before = _bytes(source.manifest)
    return QuantizationReport(
        recipe=recipe.name,
        components=[
            ComponentReport(
                name=name,
                precision=plan.precision,
                layers=len(plan.layers),
                kept=plan.kept,
                bytes_before=plan.bytes_before,
                bytes_after=plan.bytes_after,
            )
            for name, plan in plans.items()
        ],
        results=[],
        items=[],
        bytes_before=before,
        bytes_after=before - sum(plan.bytes_before - plan.bytes_after for plan in plans.values()),
        forced=False,
        written=False,
    )


def _write(
    writer: BundleWriter,
    source: Bundle,
    plans: Mapping[ComponentName, ComponentPlan],
    recipe_name: str,
    tell: Progress,
) -> dict[ComponentName, ComponentDraft]:
    """All components, quantized where there is a plan, and the speakers."""
    drafts: dict[ComponentName, ComponentDraft] = {}
    names = list(source.manifest.components)
    for count, name in enumerate(names):
        tell(f"writing {name}", count / len(names))
        if name in plans:
            drafts[name] = write_component(plans[name], source, writer, recipe_name)
        else:
            drafts[name] = writer.copy_component(source, name)
    for path in list_speakers([source.speakers_folder]).values():
        if not path.is_file():
            continue  # a folder or a pipe of that name
        shutil.copyfile(path, writer.speakers_folder() / path.name)
    return drafts


def _content(
    manifest: Manifest, drafts: Mapping[ComponentName, ComponentDraft], quality: Quality
) -> dict[str, Any]:
    """What `BundleWriter.finish` is given."""
    return {
        "generation": manifest.generation,
        "source": manifest.source,
        "audio": manifest.audio,
        "components": drafts,
        "synthesis": manifest.synthesis,
        "quality": quality,
    }


def _bytes(manifest: Manifest, component: ComponentName | None = None) -> int:
    return sum(
        entry.size
        for name, part in manifest.components.items()
        if component in (None, name)
        for entry in part.files
    )


def _say_nothing(what: str, done: float) -> None:
    pass
