"""Sensitivities as Markdown, CSV and a picture, and the run that makes them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import output_error, write_file_atomically
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.quantization.planner import Planner, Progress, materials_for
from cosyvoice_cpu.quantization.recipe import load_recipe
from cosyvoice_cpu.quantization.search import candidates_of, chosen_parts
from cosyvoice_cpu.quantization.sensitivity import PLAYED, LayerSensitivity, measure_sensitivity

_WIDTH, _LEFT, _RIGHT = 900, 190, 70  # pixels; names left of the bars, figures right
_BAR, _GAP, _TOP = 11, 3, 48
_MOST_DB = 80.0  # at the end of the scale: what is better doesn't matter
_COLOURS = {"speech_lm": "#4878a8", "flow_estimator": "#d08a3e"}
_STYLE = "font-family: sans-serif; font-size: 11px"


def write_sensitivity(
    bundle: Path,
    folder: Path,
    *,
    recipe: str,
    components: Sequence[str] = (),
    calibration: Path | None = None,
    threads: int = 1,
    progress: Progress | None = None,
) -> list[LayerSensitivity]:
    """Measure every layer that `recipe` quantizes by itself; tables and picture go to `folder`.

    Writes `sensitivity.md`, `.csv` and `.svg`. Of a searched component the first candidate counts.
    What an interrupted run had measured is not measured again.
    Raises: UsageError, BundleError, OutputError.
    """
    tell: Progress = progress or (lambda what, done: None)
    chosen = chosen_parts(load_recipe(recipe), components)
    materials = materials_for(open_bundle(bundle), calibration, threads, tell)
    rows: list[LayerSensitivity] = []
    for name in chosen.names:
        if name not in PLAYED:
            continue
        plan = Planner(materials).plan(name, candidates_of(chosen, name)[0].part)
        rows += measure_sensitivity(
            materials.reference,
            plan,
            materials.calibration[0],
            materials.findings,
            lambda done, name=name: tell(f"{name}: measuring each layer", done),  # type: ignore[misc]
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    title = f"SQNR with one layer quantized, recipe {chosen.name}"
    for suffix, text in ((".md", to_markdown(rows)), (".csv", to_csv(rows))):
        write_file_atomically(folder / f"sensitivity{suffix}", text.encode())
    write_file_atomically(folder / "sensitivity.svg", to_svg(rows, title).encode())
    materials.findings.forget()
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
    height = _TOP + len(rows) * (_BAR + _GAP) + 10
    scale = (_WIDTH - _LEFT - _RIGHT) / _MOST_DB
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" style="{_STYLE}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="20" font-size="15">{escape(title)}</text>',
    ]
    for decibels in range(0, int(_MOST_DB) + 1, 20):
        x = _LEFT + decibels * scale
        parts.append(f'<line x1="{x}" y1="{_TOP - 6}" x2="{x}" y2="{height}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x}" y="{_TOP - 10}" text-anchor="middle">{decibels} dB</text>')
    for index, row in enumerate(rows):
        y = _TOP + index * (_BAR + _GAP)
        width = min(max(row.sqnr_db, 0.0), _MOST_DB) * scale
        name = escape(f"{row.component.removesuffix('_estimator')} {row.layer}")
        base = y + _BAR - 2
        parts.append(f'<text x="{_LEFT - 8}" y="{base}" text-anchor="end">{name}</text>')
        parts.append(
            f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}" '
            f'fill="{_COLOURS[row.component]}"/>'
        )
        parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{base}">{row.sqnr_db:.1f}</text>')
    return "\n".join([*parts, "</svg>\n"])
