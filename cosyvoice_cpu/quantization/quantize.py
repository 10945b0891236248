"""From a float32 bundle to a quantized one, or to a refusal.

    plan ─> for each component its candidates: written to a hidden folder, measured ─> the chosen
    ones ─> words and voices, for which a searched one may be rolled back to float32 ─> solver
    presets, if the recipe searches one ─> gate ─> rename

Nothing of the checkpoint is needed. Weights are read from the mapped bundle one tensor at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest, Quality, SolverPreset
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.progress import Progress, no_progress, share_of
from cosyvoice_cpu.quantization.calibration.pairs import RANDOM, Random
from cosyvoice_cpu.quantization.gate.accuracy import QualityRefusedError
from cosyvoice_cpu.quantization.gate.intelligibility import SpeechCheck, check_speech, rollback
from cosyvoice_cpu.quantization.measurement_cache import digest_of
from cosyvoice_cpu.quantization.recipes.recipe import AUTO, load_recipe
from cosyvoice_cpu.quantization.report import CandidateReport, ComponentReport, QuantizationReport
from cosyvoice_cpu.quantization.search.candidate import (
    ComponentPlan,
    plan_component,
    predicted_memory,
)
from cosyvoice_cpu.quantization.search.evaluator import CandidateEvaluator
from cosyvoice_cpu.quantization.search.fitting import prepare_inputs
from cosyvoice_cpu.quantization.search.presets import FoundPreset, search_presets
from cosyvoice_cpu.quantization.search.selection import (
    CandidateResult,
    fastest,
    with_pooled_speeds,
)
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

_SMALLEST_FREE_BYTES = 40_000_000  # on the output's disk, above what the weights take
_NOT_MEASURED = Quality(results=[], forced=False)


def quantize_bundle(
    bundle: Path,
    output: Path,
    *,
    recipe: str = AUTO,
    components: Sequence[str] = (),
    calibration: Path | Random | None = None,
    dry_run: bool = False,
    force: bool = False,
    overwrite: bool = False,
    threads: int = 1,
    progress: Progress = no_progress,
    keep_measurements: bool = False,
) -> QuantizationReport:
    """Quantize the float32 `bundle` into a new one at `output`.

    `recipe` is one of the package's or a path that ends in `.toml`. Where it names candidates for
    a component ("auto" does), the fastest on this machine that passes the gate is taken, and layers
    or a component that are not faster than float32 are restored to it.
    `components` picks among the recipe's, all by default. `calibration` is a folder of text/audio
    pairs, by default the project's own; "random" takes random ids instead, for a bundle without
    front end. `dry_run` plans and writes nothing. `force` writes what the gate refused and marks it
    so. A recipe that searches a solver preset adds it to the bundle's, under the same rule. What an
    interrupted run had measured is not measured again; with `keep_measurements` it
    stays for the next recipe as well.
    Raises: QualityRefusedError (nothing is written), UsageError, BundleError, ManifestError.
    """
    chosen = load_recipe(recipe).restricted_to(components)
    candidates = {name: chosen.candidates(name) for name in chosen.names}
    progress("checking the bundle", 0.0)
    source = open_bundle(bundle)
    plans = {
        name: [
            plan_component(source, name, part, recipe_name) for recipe_name, part in parts.items()
        ]
        for name, parts in candidates.items()
    }
    planned = _planned(source, chosen.name, plans)
    if dry_run:
        return planned
    with BundleWriter(output, overwrite, planned.bytes_after + _SMALLEST_FREE_BYTES) as writer:
        if not plans:
            calibration = RANDOM  # nothing is fitted, so nothing needs to be read
        inputs = prepare_inputs(source, calibration, threads, progress)
        evaluator = CandidateEvaluator(inputs, writer)
        drafts = _copied(writer, source, plans, progress)
        reports: dict[ComponentName, ComponentReport] = {}
        taken: dict[ComponentName, CandidateResult] = {}
        for name, entries in plans.items():
            search = chosen.search.get(name)
            least = search.min_speedup if search else None
            results = with_pooled_speeds([evaluator.evaluate(plan, least) for plan in entries])
            best = results[0] if least is None else fastest(results, least)
            reports[name] = _component_report(source, results, best, least)
            if best:
                taken[name] = best
                drafts[name] = evaluator.write(best.plan)
            else:
                drafts[name] = evaluator.copy(name)

        def result_so_far() -> BundleStages:
            content = _content(source.manifest, drafts, _NOT_MEASURED)
            return BundleStages(writer.preview(**content), threads)

        def result_key() -> str:
            return digest_of(sorted(evaluator.key(result.plan) for result in taken.values()))[:32]

        def speech() -> SpeechCheck:
            if not taken:
                return SpeechCheck([], [])
            return check_speech(
                inputs.reference,
                result_so_far,
                chosen.speech,
                inputs.cache,
                result_key(),
                share_of(progress, "measuring words and voices"),
            )

        checked = speech()
        while refused := rollback(checked.results, chosen.search.keys() & taken.keys()):
            name, reason = refused
            del taken[name]
            drafts[name] = evaluator.copy(name)
            reports[name] = replace(
                reports[name], restored=reason, precision=source.component(name).precision
            )
            checked = speech()
        quality = [result for candidate in taken.values() for result in candidate.results]
        quality += checked.results
        found: FoundPreset | None = None
        if chosen.presets:
            found = search_presets(
                inputs.reference,
                result_so_far() if taken else inputs.reference,
                chosen.presets,
                inputs.cache,
                result_key() if taken else "float32",
                share_of(progress, "judging solver presets"),
            )
            quality += found.results
        failed = not all(result.passed for result in quality)
        if failed and not force:
            raise QualityRefusedError(quality)
        progress("digests", 0.0)
        presets = _presets(source.manifest, found)
        kept = [
            result
            for result in source.manifest.quality.results
            if result.preset is not None and not (found and result.preset == found.name)
        ]
        forced = failed or not all(result.passed for result in kept)
        manifest = writer.finish(
            **_content(
                source.manifest, drafts, Quality(results=[*quality, *kept], forced=forced), presets
            )
        )
    if not keep_measurements:
        inputs.cache.clear()
    return replace(
        planned,
        components=[
            replace(report, bytes_after=_bytes(manifest, report.name))
            for report in reports.values()
        ],
        results=quality,
        items=[item.name for item in inputs.held_out],
        fitted_items=[item.name for item in inputs.fitted],
        calibration=inputs.items.origin,
        bytes_after=_bytes(manifest),
        forced=failed,
        written=True,
        reused=inputs.cache.reused,
        notes=[*([_RANDOM_NOTE] if plans and calibration == RANDOM else []), *checked.remarks],
        presets=found.curve if found else [],
    )


_RANDOM_NOTE = (
    "calibrated and measured on random ids, not on speech: the gate says little of real sentences"
)


def _planned(
    source: Bundle, recipe: str, plans: Mapping[ComponentName, Sequence[ComponentPlan]]
) -> QuantizationReport:
    """What would be done; of several candidates the first stands for the result."""
    before = _bytes(source.manifest)
    parts = [
        replace(
            _component_report(source, results, results[0], None),
            candidates=[_candidate_report(result, None) for result in results],
        )
        for results in ([CandidateResult(plan) for plan in entries] for entries in plans.values())
    ]
    return QuantizationReport(
        recipe=recipe,
        components=parts,
        results=[],
        items=[],
        bytes_before=before,
        bytes_after=before - sum(part.bytes_before - part.bytes_after for part in parts),
        memory_bytes=predicted_memory([plan for entries in plans.values() for plan in entries]),
        forced=False,
        written=False,
    )


def _component_report(
    source: Bundle,
    results: Sequence[CandidateResult],
    best: CandidateResult | None,
    min_speedup: float | None,
) -> ComponentReport:
    """What became of a component; its size is known when the bundle is written."""
    shown = best or results[0]
    plan = shown.plan
    refusals = [result.refusal(min_speedup or 0.0) for result in results]
    return ComponentReport(
        name=plan.name,
        recipe=plan.recipe_name,
        precision=plan.precision if best else source.component(plan.name).precision,
        layers=len(plan.layers),
        float32_layers=plan.float32_layers,
        bytes_before=plan.bytes_before,
        bytes_after=plan.bytes_after,
        speedup=shown.speedup,
        restored=None if best else refusals[0],
        candidates=[
            _candidate_report(result, refusal)
            for result, refusal in zip(results, refusals, strict=True)
        ],
    )


def _candidate_report(result: CandidateResult, refusal: str | None) -> CandidateReport:
    plan = result.plan
    return CandidateReport(
        recipe=plan.recipe_name,
        precision=plan.precision,
        layers=len(plan.layers),
        slow=result.slow,
        sensitive=result.sensitive,
        results=result.results,
        speedup=result.speedup,
        bytes_after=plan.bytes_after,
        smoothing=str(plan.smoothing) if plan.smoothing else None,
        refusal=refusal,
    )


def _copied(
    writer: BundleWriter,
    source: Bundle,
    quantized: Mapping[ComponentName, object],
    progress: Progress,
) -> dict[ComponentName, ComponentDraft]:
    """The components that stay as they are, and the speakers."""
    drafts: dict[ComponentName, ComponentDraft] = {}
    names = [name for name in source.manifest.components if name not in quantized]
    for count, name in enumerate(names):
        progress(f"copying {name}", count / len(names))
        drafts[name] = writer.copy_component(source, name)
    for path in list_speakers([source.speakers_folder]).values():
        if not path.is_file():
            continue  # a folder or a pipe of that name
        shutil.copyfile(path, writer.speakers_folder() / path.name)
    return drafts


def _content(
    manifest: Manifest,
    drafts: Mapping[ComponentName, ComponentDraft],
    quality: Quality,
    presets: Mapping[str, SolverPreset] | None = None,
) -> dict[str, Any]:
    """What `BundleWriter.finish` is given; `presets` are those of `manifest` unless given."""
    synthesis = manifest.synthesis
    if presets:
        synthesis = msgspec.structs.replace(synthesis, solver_presets=dict(presets))
    return {
        "generation": manifest.generation,
        "source": manifest.source,
        "audio": manifest.audio,
        "components": drafts,
        "synthesis": synthesis,
        "quality": quality,
    }


def _presets(manifest: Manifest, found: FoundPreset | None) -> dict[str, SolverPreset]:
    """The bundle's presets and the one that was found."""
    presets = dict(manifest.synthesis.solver_presets)
    return {**presets, found.name: found.preset} if found else presets


def _bytes(manifest: Manifest, component: ComponentName | None = None) -> int:
    return sum(
        entry.size
        for name, part in manifest.components.items()
        if component in (None, name)
        for entry in part.files
    )
