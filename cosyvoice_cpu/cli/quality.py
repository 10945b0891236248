"""The part of `verify` behind `--quality`: what it prints and writes."""

from __future__ import annotations

from pathlib import Path

import typer

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.checking import QualityReport
from cosyvoice_cpu.evaluation.quality.thresholds import Decision


def require_quality(quality: bool, *options: tuple[str, object]) -> None:
    """Raises: UsageError if one of `options` (name, value) was given without --quality."""
    given = [name for name, value in options if value is not None]
    if given and not quality:
        raise UsageError(f"{given[0]} is about the table of --quality", "add --quality")


def print_quality(report: QualityReport) -> None:
    """The table of sums on stdout, what is missing on stderr."""
    from cosyvoice_cpu.cli.messages import note
    from cosyvoice_cpu.evaluation.quality.formats import remarks, summary_lines

    for line in summary_lines(report.table, report.decisions):
        typer.echo(line)
    for remark in remarks(report.table, report.decisions):
        note(remark)


def write_quality(report: QualityReport, prefix: Path) -> None:
    """PREFIX.md, PREFIX.csv and PREFIX.json. Raises: OutputError."""
    from cosyvoice_cpu.bundle.atomic import write_file_atomically
    from cosyvoice_cpu.evaluation.quality.formats import to_csv, to_json_text, to_markdown

    contents = {
        ".md": to_markdown(report.table, report.decisions),
        ".csv": to_csv(report.table),
        ".json": to_json_text(report.table, report.decisions),
    }
    for suffix, content in contents.items():
        write_file_atomically(prefix.parent / f"{prefix.name}{suffix}", content.encode())


def describe_missed(decision: Decision) -> str:
    """As in "mel_correlation 0.984 (>= 0.9999)"."""
    from cosyvoice_cpu.evaluation.quality.formats import threshold_text

    return (
        f"{decision.threshold.measure} {decision.value:.4g} ({threshold_text(decision.threshold)})"
    )
