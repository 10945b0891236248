"""A quality table as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from cosyvoice_cpu.evaluation.quality.measures import Measure, Of
from cosyvoice_cpu.evaluation.quality.table import ItemResult, QualityTable, Row
from cosyvoice_cpu.evaluation.quality.thresholds import Floor, Verdict, passes

_SIGNS = {"at_least": ">=", "at_most": "<="}
_RESULTS = {True: "pass", False: "FAIL", None: "not judged"}


def to_markdown(table: QualityTable, verdicts: Sequence[Verdict] = ()) -> str:
    """The sums with intervals and floors, then two tables of items."""
    lines = [f"# Quality of {_cell(table.candidate)}", ""]
    against = f" Reference: {_cell(table.reference)}." if table.reference else ""
    lines += [f"{len(table.items)} sentences, seed {table.seed}.{against}", ""]
    lines += summary_lines(table, verdicts)
    for remark in remarks(table, verdicts):
        lines += ["", f"{remark[0].upper()}{remark[1:]}"]
    for mode in ("teacher-forced", "free-running"):
        columns = [(part, of) for part, of in table.columns() if part.mode == mode]
        if columns:
            lines += ["", f"## Item by item, {mode}", ""]
            lines += _items(table.items, columns)
    if any(item.heard for item in table.items):
        lines += ["", "## What was heard", ""]
        lines += _heard(table)
    return "\n".join(lines) + "\n"


def remarks(table: QualityTable, verdicts: Sequence[Verdict] = ()) -> list[str]:
    """What was not measured or not judged, and why, a sentence each."""
    unjudged = (verdict for verdict in verdicts if verdict.passed is None)
    return [
        *(f"not measured: {note}" for note in table.notes),
        *(f"not judged: {verdict.floor.measure}, {verdict.reason}" for verdict in unjudged),
    ]


def summary_lines(table: QualityTable, verdicts: Sequence[Verdict] = ()) -> list[str]:
    """The Markdown table of the sums, one line per measure and side."""
    judged = {(verdict.floor.measure, verdict.floor.of): verdict for verdict in verdicts}
    rows = [("measure", "of", "items", "value", "95 % interval", "floor", "result")]
    for row in table.rows():
        digits, interval = row.measure.digits, row.interval
        verdict = judged.get((row.measure.name, row.of))
        rows.append(
            (
                row.measure.title,
                row.of,
                str(row.items),
                f"{interval.value:.{digits}f}",
                f"{interval.low:.{digits}f} to {interval.high:.{digits}f}",
                floor_text(verdict.floor) if verdict else "",
                _RESULTS[verdict.passed] if verdict else "",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        _line([part.ljust(width) for part, width in zip(row, widths, strict=True)]) for row in rows
    ]
    lines.insert(1, _line(["-" * width for width in widths]))
    return lines


def floor_text(floor: Floor) -> str:
    """As in ">= 0.99"."""
    return f"{_SIGNS[floor.bound]} {floor.limit:g}"


def to_csv(table: QualityTable) -> str:
    """One line per item, then the lines `all`, `low` and `high` with means and intervals.

    Columns are the sentence's name, language and text, a column per measure and side, and what was
    heard. A measure without a value on an item is empty there.
    """
    columns = list(table.columns())
    sides: list[Of] = [
        of for of in ("reference", "candidate") if any(of in item.heard for item in table.items)
    ]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    titles = [_column_name(measure, of) for measure, of in columns]
    writer.writerow(["item", "language", "text", *titles, *(f"heard.{of}" for of in sides)])
    for item in table.items:
        cells = [item.cells.get((measure.name, of)) for measure, of in columns]
        values = ["" if cell is None else _number(cell.value) for cell in cells]
        heard = [item.heard.get(of, "") for of in sides]
        sentence = item.sentence
        writer.writerow([sentence.name, sentence.language, sentence.text, *values, *heard])
    sums = {(row.measure.name, row.of): row.interval for row in table.rows()}
    for name, part in (("all", "value"), ("low", "low"), ("high", "high")):
        found = [sums.get((measure.name, of)) for measure, of in columns]
        values = [
            "" if interval is None else _number(getattr(interval, part)) for interval in found
        ]
        writer.writerow([name, "", "", *values, *("" for _ in sides)])
    return file.getvalue()


def to_json(table: QualityTable, verdicts: Sequence[Verdict] = ()) -> dict[str, Any]:
    """The whole table as plain values."""
    return {
        "reference": table.reference,
        "candidate": table.candidate,
        "seed": table.seed,
        "passed": passes(verdicts),
        "summary": [_row(row) for row in table.rows()],
        "verdicts": [_verdict(verdict) for verdict in verdicts],
        "not_measured": list(table.notes),
        "items": [_item(item) for item in table.items],
    }


def to_json_text(table: QualityTable, verdicts: Sequence[Verdict] = ()) -> str:
    """`to_json` as text, with a line break at the end."""
    return json.dumps(to_json(table, verdicts), indent=2, ensure_ascii=False) + "\n"


def _row(row: Row) -> dict[str, Any]:
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


def _verdict(verdict: Verdict) -> dict[str, Any]:
    floor = verdict.floor
    return {
        "measure": floor.measure,
        "of": floor.of,
        "value": verdict.value,
        "bound": floor.bound,
        "limit": floor.limit,
        "passed": verdict.passed,
        "reason": verdict.reason,
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
        "heard": dict(item.heard),
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


def _heard(table: QualityTable) -> list[str]:
    sides: list[Of] = ["reference", "candidate"] if table.reference else ["candidate"]
    lines = [_line(["item", "text", *sides]), _line(["---"] * (len(sides) + 2))]
    for item in table.items:
        heard = [_cell(item.heard.get(of, "")) for of in sides]
        lines.append(_line([item.sentence.name, _cell(item.sentence.text), *heard]))
    return lines


def _column_name(measure: Measure, of: Of) -> str:
    return measure.name if of == "both" else f"{measure.name}.{of}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str | None) -> str:
    return (text or "").replace("|", "\\|").replace("\n", " ")


def _number(value: float) -> str:
    return f"{value:.6g}"
