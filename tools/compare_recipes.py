"""Recipes beside each other on one bundle: the table of docs/lab/quantization-log.md.

    python -m tools.compare_recipes BUNDLE --recipe NAME [--recipe NAME ...]
        --output FOLDER [--calibration DIR|random] [--threads N] [--keep]

Each recipe quantizes the bundle whatever the gate says, so that what is refused can be seen, too.
FOLDER gets `recipes.md`, `recipes.csv` and, with --keep, the bundles.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import output_error, write_file_atomically
from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.progress import Progress, no_progress
from cosyvoice_cpu.quantization.calibration.pairs import RANDOM, Random
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache
from cosyvoice_cpu.quantization.quantize import quantize_bundle
from cosyvoice_cpu.quantization.recipes.recipe import load_recipe, recipe_names
from cosyvoice_cpu.quantization.report import ComponentReport, QuantizationReport
from tools.failures import reports_failures

_MANY = 4  # layers are counted where naming them would fill the page


@dataclass(frozen=True)
class Entry:
    """One recipe: what it did, or why it could not be tried."""

    recipe: str
    report: QuantizationReport | None
    reason: str = ""


def compare_recipes(
    bundle: Path,
    folder: Path,
    recipes: Sequence[str],
    *,
    calibration: Path | Random | None = None,
    threads: int = 1,
    keep: bool = False,
    progress: Progress = no_progress,
) -> list[Entry]:
    """Quantize `bundle` by each of `recipes` and write the tables into `folder`.

    A recipe whose extra is not installed gets a row that says so.
    Raises: UsageError, BundleError, OutputError.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    entries = []
    for recipe in recipes:
        output = folder / Path(recipe).stem
        try:
            report = quantize_bundle(
                bundle,
                output,
                recipe=recipe,
                calibration=calibration,
                force=True,
                overwrite=True,
                threads=threads,
                progress=progress,
                keep_measurements=True,
            )
        except MissingExtraError as error:
            entries.append(Entry(recipe, None, f"{error.what}; {error.hint}"))
            continue
        entries.append(Entry(recipe, report))
        if not keep:
            shutil.rmtree(output)
    MeasurementCache(open_bundle(bundle).manifest).clear()
    write_file_atomically(folder / "recipes.md", to_markdown(entries).encode())
    write_file_atomically(folder / "recipes.csv", to_csv(entries).encode())
    return entries


def to_markdown(entries: Sequence[Entry]) -> str:
    """A row for each component of each recipe, then the sizes of the bundles."""
    lines = [
        "| component | recipe | precision | quality | gate | times as fast | size | float32 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in entries:
        if not entry.report:
            continue
        for part in entry.report.components:
            results = _results(part)
            speed = f"{part.speedup:.2f}" if part.speedup else ""
            precision = part.precision
            if part.recipe != entry.report.recipe and not part.restored:
                precision += f", as {part.recipe}"
            cells = [
                *(part.name, entry.recipe, precision, ", ".join(map(_measured, results))),
                *(_decision(part, results), speed, _megabytes(part.bytes_after), _stays(part)),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| recipe | bundle | of float32 |", "|---|---|---|"]
    for entry in entries:
        if entry.report:
            share = entry.report.bytes_after / entry.report.bytes_before
            size = _megabytes(entry.report.bytes_after)
            lines.append(f"| {entry.recipe} | {size} | {share:.1%} |")
        else:
            lines.append(f"| {entry.recipe} | {entry.reason} | |")
    return "\n".join(lines) + "\n"


def to_csv(entries: Sequence[Entry]) -> str:
    """A row for each measure."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [
            *("recipe", "component", "precision", "measure", "value", "bound", "limit", "passed"),
            *("speedup", "bytes_before", "bytes_after", "float32"),
        ]
    )
    for entry in entries:
        if not entry.report:
            continue
        for part in entry.report.components:
            for result in _results(part):
                judged = (result.value, result.bound, result.limit, result.passed)
                writer.writerow(
                    [
                        *(entry.recipe, part.name, part.precision, result.measure, *judged),
                        *(
                            part.speedup,
                            part.bytes_before,
                            part.bytes_after,
                            " ".join(part.float32_layers),
                        ),
                    ]
                )
        for result in entry.report.results:
            if result.component is None:
                judged = (result.value, result.bound, result.limit, result.passed)
                writer.writerow([entry.recipe, "", "", result.measure, *judged, "", "", "", ""])
    return text.getvalue()


def _results(part: ComponentReport) -> list[QualityResult]:
    """Of the candidate that was taken, else of the first."""
    taken = [entry for entry in part.candidates if entry.recipe == part.recipe]
    return (taken or part.candidates)[0].results


def _measured(result: QualityResult) -> str:
    """As in "logits SQNR 29.9 dB"."""
    name = result.measure.removesuffix("_db").replace("_sqnr", " SQNR")
    return f"{name} {result.value:.1f} dB"


def _decision(part: ComponentReport, results: Sequence[QualityResult]) -> str:
    if part.restored:
        return f"float32: {part.restored}"
    failed = [result.measure for result in results if not result.passed]
    return f"refused: {', '.join(failed)}" if failed else "passes"


def _stays(part: ComponentReport) -> str:
    if part.restored:
        return "all"
    if len(part.float32_layers) > _MANY:
        return f"{len(part.float32_layers)} of {len(part.float32_layers) + part.layers} layers"
    return ", ".join(part.float32_layers) or "nothing"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


def _calibration(given: str | None) -> Path | Random | None:
    return RANDOM if given == RANDOM else Path(given) if given else None


@reports_failures
def main() -> int:
    """Print the tables; exit code 0, or 2 for what can't be done."""
    assert __doc__
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path, help="a float32 bundle")
    parser.add_argument("--recipe", action="append", help="repeatable; by default all there are")
    parser.add_argument("--output", type=Path, required=True, help="a folder for the tables")
    parser.add_argument("--calibration", metavar="DIR|random")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the bundles")
    options = parser.parse_args()
    entries = compare_recipes(
        options.bundle,
        options.output,
        options.recipe or [name for name in recipe_names() if load_recipe(name).names],
        calibration=_calibration(options.calibration),
        threads=options.threads,
        keep=options.keep,
        progress=lambda what, done: print(f"{what}, {done:.0%}", file=sys.stderr),
    )
    print(to_markdown(entries), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
