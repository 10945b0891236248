"""From a float32 bundle to a quantized one, or to a refusal.

    plan ─> for each component its candidates: made in the writer's hidden folder, measured ─> the
    chosen ones ─> listeners, who may send a searched one back to float32 ─> gate ─> rename

Nothing of the checkpoint is needed. Weights are read from the mapped bundle one tensor at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest, Quality
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.quantization.component import plan_component
from cosyvoice_cpu.quantization.findings import digest_of
from cosyvoice_cpu.quantization.gate import QualityRefusedError
from cosyvoice_cpu.quantization.heard import Heard, listen
from cosyvoice_cpu.quantization.memory import predicted_memory
from cosyvoice_cpu.quantization.planner import Progress, materials_for
from cosyvoice_cpu.quantization.recipe import AUTO, Recipe, load_recipe
from cosyvoice_cpu.quantization.relief import suspect
from cosyvoice_cpu.quantization.report import AttemptReport, ComponentReport, QuantizationReport
from cosyvoice_cpu.quantization.search import (
    Attempt,
    Candidate,
    candidates_of,
    chosen_parts,
    fastest,
    pooled,
)
from cosyvoice_cpu.quantization.workshop import Workshop
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

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
    keep_findings: bool = False,
) -> QuantizationReport:
    """Quantize the float32 `bundle` into a new one at `output`.

    `recipe` is one of the package's or a path that ends in `.toml`. Where it names candidates for
    a component instead of a form ("auto" does), the fastest on this machine that passes the gate
    is taken, and layers or a component that are not faster than float32 go back to it.
    `components` picks among the recipe's, all by default. `calibration` is a folder of text/audio
    pairs. `dry_run` plans and writes nothing. `force` writes what the gate refused and marks it so.
    What an interrupted run had measured is not measured again; with `keep_findings` it stays for
    the next recipe as well.
    Raises: QualityRefusedError (nothing is written), UsageError, BundleError, ManifestError.
    """
    tell = progress or _say_nothing
    chosen = chosen_parts(load_recipe(recipe), components)
    candidates = {name: candidates_of(chosen, name) for name in chosen.names}
    tell("checking the bundle", 0.0)
    source = open_bundle(bundle)
    plan = _planned(source, chosen, candidates)
    if dry_run:
        return plan
    with BundleWriter(output, overwrite, plan.bytes_after + _SMALLEST_FREE_BYTES) as writer:
        materials = materials_for(source, calibration, threads, tell)
        workshop = Workshop(materials, writer)
        drafts = _copied(writer, source, candidates, tell)
        reports: dict[ComponentName, ComponentReport] = {}
        taken: dict[ComponentName, Attempt] = {}
        for name, entries in candidates.items():
            search = chosen.search.get(name)
            least = search.least_speedup if search else None
            attempts = pooled([workshop.attempt(name, candidate, least) for candidate in entries])
            best = attempts[0] if least is None else fastest(attempts, least)
            reports[name] = _component_report(source, name, attempts, best, least)
            if best:
                taken[name] = best
                drafts[name] = workshop.write(best.plan, best.candidate.recipe)
            else:
                drafts[name] = workshop.copy(name)

        def listened() -> Heard:
            if not taken:
                return Heard([], [])
            content = _content(source.manifest, drafts, _NOT_MEASURED)
            return listen(
                materials.reference,
                lambda: BundleStages(writer.preview(**content), threads),
                chosen.speech,
                materials.findings,
                digest_of(sorted(map(workshop.key, taken.values())))[:32],
                lambda done: tell("listening to words and voices", done),
            )

        heard = listened()
        while put_back := suspect(heard.results, chosen.search.keys() & taken.keys()):
            name, reason = put_back
            del taken[name]
            drafts[name] = workshop.copy(name)
            reports[name] = replace(
                reports[name], put_back=reason, precision=source.component(name).precision
            )
            heard = listened()
        results = [result for attempt in taken.values() for result in attempt.results]
        results += heard.results
        refused = not all(result.passed for result in results)
        if refused and not force:
            raise QualityRefusedError(results)
        tell("digests", 0.0)
        manifest = writer.finish(
            **_content(source.manifest, drafts, Quality(results=results, forced=refused))
        )
    resumed = materials.findings.reused
    if not keep_findings:
        materials.findings.forget()
    return replace(
        plan,
        components=[
            replace(report, bytes_after=_bytes(manifest, report.name))
            for report in reports.values()
        ],
        results=results,
        items=[item.name for item in materials.held_out],
        bytes_after=_bytes(manifest),
        forced=refused,
        written=True,
        resumed=resumed,
        notes=heard.remarks,
    )


_NOT_MEASURED = Quality(results=[], forced=False)


def _planned(
    source: Bundle, recipe: Recipe, candidates: Mapping[ComponentName, Sequence[Candidate]]
) -> QuantizationReport:
    """What would be done; of several candidates the first stands for the result."""
    before = _bytes(source.manifest)
    plans = {
        name: [plan_component(source, name, candidate.part) for candidate in entries]
        for name, entries in candidates.items()
    }
    parts = [
        ComponentReport(
            name=name,
            recipe=candidates[name][0].recipe,
            precision=entries[0].precision,
            layers=len(entries[0].layers),
            kept=entries[0].kept,
            bytes_before=entries[0].bytes_before,
            bytes_after=entries[0].bytes_after,
            attempts=[
                _attempt_report(Attempt(candidate, plan), None)
                for candidate, plan in zip(candidates[name], entries, strict=True)
            ],
        )
        for name, entries in plans.items()
    ]
    return QuantizationReport(
        recipe=recipe.name,
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
    name: ComponentName,
    attempts: Sequence[Attempt],
    best: Attempt | None,
    least: float | None,
) -> ComponentReport:
    """What became of a component; its size is known when the bundle is written."""
    shown = best or attempts[0]
    refusals = [attempt.refusal(least or 0.0) for attempt in attempts]
    return ComponentReport(
        name=name,
        recipe=shown.candidate.recipe,
        precision=shown.plan.precision if best else source.component(name).precision,
        layers=len(shown.plan.layers),
        kept=shown.plan.kept,
        bytes_before=shown.plan.bytes_before,
        bytes_after=shown.plan.bytes_after,
        speedup=shown.speedup,
        put_back=None if best else refusals[0],
        attempts=[
            _attempt_report(attempt, refusal)
            for attempt, refusal in zip(attempts, refusals, strict=True)
        ],
    )


def _attempt_report(attempt: Attempt, refusal: str | None) -> AttemptReport:
    return AttemptReport(
        recipe=attempt.candidate.recipe,
        precision=attempt.plan.precision,
        layers=len(attempt.plan.layers),
        slow=attempt.slow,
        sensitive=attempt.sensitive,
        results=attempt.results,
        speedup=attempt.speedup,
        bytes_after=attempt.plan.bytes_after,
        smoothing=str(attempt.plan.smoothing) if attempt.plan.smoothing else None,
        refusal=refusal,
    )


def _copied(
    writer: BundleWriter,
    source: Bundle,
    quantized: Mapping[ComponentName, object],
    tell: Progress,
) -> dict[ComponentName, ComponentDraft]:
    """The components that stay as they are, and the speakers."""
    drafts: dict[ComponentName, ComponentDraft] = {}
    names = [name for name in source.manifest.components if name not in quantized]
    for count, name in enumerate(names):
        tell(f"copying {name}", count / len(names))
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
