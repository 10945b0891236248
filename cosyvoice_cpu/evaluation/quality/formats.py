"""A quality table as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from cosyvoice_cpu.evaluation.quality.measures import Measure, Of
from cosyvoice_cpu.evaluation.quality.table import ItemResult, MeasureRow, QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import Decision, Threshold, passes

_SIGNS = {"at_least": ">=", "at_most": "<="}
_RESULTS = {True: "pass", False: "FAIL", None: "not judged"}


def to_markdown(table: QualityTable, decisions: Sequence[Decision] = ()) -> str:
    """The sums with intervals and thresholds, then two tables of items."""
    lines = [f"# Quality of {_cell(table.candidate)}", ""]
    against = f" Reference: {_cell(table.reference)}." if table.reference else ""
    lines += [f"{len(table.items)} sentences, seed {table.seed}.{against}", ""]
    lines += summary_lines(table, decisions)
    for remark in remarks(table, decisions):
        lines += ["", f"{remark[0].upper()}{remark[1:]}"]
    for mode in ("teacher-forced", "free-running"):
        columns = [(part, of) for part, of in table.columns() if part.mode == mode]
        if columns:
            lines += ["", f"## Item by item, {mode}", ""]
            lines += _items(table.items, columns)
    if any(item.transcripts for item in table.items):
        lines += ["", "## Transcripts", ""]
        lines += _transcripts(table)
    return "\n".join(lines) + "\n"


def remarks(table: QualityTable, decisions: Sequence[Decision] = ()) -> list[str]:
    """What was not measured or not judged, and why, a sentence each."""
    unjudged = (decision for decision in decisions if decision.passed is None)
    return [
        *(f"not measured: {note}" for note in table.notes),
        *(f"not judged: {decision.threshold.measure}, {decision.reason}" for decision in unjudged),
    ]


def summary_lines(table: QualityTable, decisions: Sequence[Decision] = ()) -> list[str]:
    """The Markdown table of the sums, one line per measure and system."""
    judged = {
        (decision.threshold.measure, decision.threshold.of): decision for decision in decisions
    }
    rows = [("measure", "of", "items", "value", "95 % interval", "threshold", "result")]
    for row in table.rows():
        digits, interval = row.measure.digits, row.interval
        decision = judged.get((row.measure.name, row.of))
        rows.append(
            (
                row.measure.title,
                row.of,
                str(row.items),
                f"{interval.value:.{digits}f}",
                f"{interval.low:.{digits}f} to {interval.high:.{digits}f}",
                threshold_text(decision.threshold) if decision else "",
                _RESULTS[decision.passed] if decision else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        _line([part.ljust(width) for part, width in zip(row, widths, strict=True)]) for row in rows
    ]
    lines.insert(1, _line(["-" * width for width in widths]))
    return lines


def threshold_text(threshold: Threshold) -> str:
    """As in ">= 0.99"."""
    return f"{_SIGNS[threshold.bound]} {threshold.limit:g}"


def to_csv(table: QualityTable) -> str:
    """One line per item, then the lines `all`, `low` and `high` with means and intervals.

    Columns are the sentence's name, language and text, a column per measure and system, and the
    transcripts. A measure without a value on an item is empty there.
    """
    columns = list(table.columns())
    systems: list[Of] = [
        of
        for of in ("reference", "candidate")
        if any(of in item.transcripts for item in table.items)
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    titles = [_column_name(measure, of) for measure, of in columns]
    writer.writerow(["item", "language", "text", *titles, *(f"transcript.{of}" for of in systems)])
    for item in table.items:
        cells = [item.cells.get((measure.name, of)) for measure, of in columns]
        values = ["" if cell is None else _number(cell.value) for cell in cells]
        transcripts = [item.transcripts.get(of, "") for of in systems]
        sentence = item.sentence
        writer.writerow([sentence.name, sentence.language, sentence.text, *values, *transcripts])
    sums = {(row.measure.name, row.of): row.interval for row in table.rows()}
    for name, part in (("all", "value"), ("low", "low"), ("high", "high")):
        found = [sums.get((measure.name, of)) for measure, of in columns]
        values = [
            "" if interval is None else _number(getattr(interval, part)) for interval in found
        ]
        writer.writerow([name, "", "", *values, *("" for _ in systems)])
    return file.getvalue()


def to_json(table: QualityTable, decisions: Sequence[Decision] = ()) -> dict[str, Any]:
    """The whole table as plain values."""
    return {
        "reference": table.reference,
        "candidate": table.candidate,
        "seed": table.seed,
        "passed": passes(decisions),
        "summary": [_row(row) for row in table.rows()],
        "decisions": [_decision(decision) for decision in decisions],
        "not_measured": list(table.notes),
        "items": [_item(item) for item in table.items],
    }


def to_json_text(table: QualityTable, decisions: Sequence[Decision] = ()) -> str:
    """`to_json` as text, with a line break at the end."""
    return json.dumps(to_json(table, decisions), indent=2, ensure_ascii=False) + "\n"


def _row(row: MeasureRow) -> dict[str, Any]:
    interval = row.interval
    return {
        "measure": row.measure.name,
        "of": row.of,
        "mode": row.measure.mode,
        "items": row.items,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
    }


def _decision(decision: Decision) -> dict[str, Any]:
    threshold = decision.threshold
    return {
        "measure": threshold.measure,
        "of": threshold.of,
        "value": decision.value,
        "bound": threshold.bound,
        "limit": threshold.limit,
        "passed": decision.passed,
        "reason": decision.reason,
    }


def _item(item: ItemResult) -> dict[str, Any]:
    sentence = item.sentence
    return {
        "name": sentence.name,
        "language": sentence.language,
        "text": sentence.text,
        "values": [
            {"measure": name, "of": of, "value": cell.value, "weight": cell.weight}
            for (name, of), cell in item.cells.items()
        ],
        "transcripts": dict(item.transcripts),
        "word_errors": {
            of: {
                "substitutions": errors.substitutions,
                "insertions": errors.insertions,
                "deletions": errors.deletions,
                "words": errors.words,
            }
            for of, errors in item.word_errors.items()
        },
    }


def _items(items: Sequence[ItemResult], columns: Sequence[tuple[Measure, Of]]) -> list[str]:
    titles = [_column_name(measure, of) for measure, of in columns]
    lines = [_line(["item", *titles]), _line(["---"] * (len(titles) + 1))]
    for item in items:
        cells = [(item.cells.get((measure.name, of)), measure.digits) for measure, of in columns]
        values = ["" if cell is None else f"{cell.value:.{digits}f}" for cell, digits in cells]
        lines.append(_line([item.sentence.name, *values]))
    return lines


def _transcripts(table: QualityTable) -> list[str]:
    systems: list[Of] = ["reference", "candidate"] if table.reference else ["candidate"]
    lines = [_line(["item", "text", *systems]), _line(["---"] * (len(systems) + 2))]
    for item in table.items:
        transcripts = [_cell(item.transcripts.get(of, "")) for of in systems]
        lines.append(_line([item.sentence.name, _cell(item.sentence.text), *transcripts]))
    return lines


def _column_name(measure: Measure, of: Of) -> str:
    return measure.name if of == "both" else f"{measure.name}.{of}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    return f"{value:.6g}"
