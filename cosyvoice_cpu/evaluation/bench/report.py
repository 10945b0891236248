"""A bench as Markdown, as CSV and as a chart, and compared with an earlier CSV."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.run import METRICS, Bench, BenchRow, Statistic
from cosyvoice_cpu.evaluation.plots import COLOURS, Bar, Part, bar_chart
from cosyvoice_cpu.system.machine import Machine

_NOISE_SHARE = 0.05  # medians closer than this are equal, whatever the spread says
_KEY_COLUMNS = ("seconds", "prompt_seconds", "threads")  # what must agree to compare
_MISSING = "–"
_LARGEST_CSV = 1 << 20  # bytes; a row takes a thousand

_LABELS = {"speech_lm": "speech LM", "flow": "flow", "vocoder": "vocoder"}

_MARKDOWN_HEAD = (
    "row",
    "RTF",
    "LM s",
    "ms/token",
    "prefill s",
    "flow s",
    "s/step",
    "vocoder s",
    "vocoder s/s",
    "of the roofline: LM, flow, vocoder",
    "load cold / warm s",
    "peak RSS MB (anonymous, file)",
    "size MB",
    "difference: logits, mel",
)


def markdown(bench: Bench, machine: Machine) -> str:
    """The machine, its peak throughput, a line per row; spreads are fastest to slowest run."""
    work, top = bench.workload, bench.peak
    bf16 = f"{top.bf16_gflops:.0f} GFLOP/s BF16, " if top.bf16_gflops else ""
    lines = [
        f"Machine: {machine.summary()}.",
        f"Peak throughput, {top.threads} threads: {top.fp32_gflops:.0f} GFLOP/s FP32, {bf16}"
        f"{top.int8_gops:.0f} GOP/s INT8, {top.read_gb_s:.1f} GB/s read.",
        f"Request: {work.seconds:g} s of audio after a prompt of "
        f"{work.prompt_seconds:g} s, {bench.threads} threads; median (fastest to slowest) of "
        f"{bench.repeat} alternating repetitions of {work.decode_tokens} tokens and "
        f"{work.solver_steps} solver steps each.",
        "",
        "| " + " | ".join(_MARKDOWN_HEAD) + " |",
        "|---" + "|--:" * (len(_MARKDOWN_HEAD) - 1) + "|",
    ]
    lines += ["| " + " | ".join(_cells(row, work.seconds)) + " |" for row in bench.rows]
    lines += [f"\n{row.spec.name}: {row.status}, {row.note}" for row in bench.rows if row.note]
    return "\n".join(lines)


def _cells(row: BenchRow, seconds: float) -> list[str]:
    if row.status != "ok":
        return [row.spec.name, row.status, *[_MISSING] * (len(_MARKDOWN_HEAD) - 2)]
    metrics = row.metrics
    shares = [
        f"{row.least_seconds[stage] / metrics[f'{stage}_s'].median:.0%}"
        if row.least_seconds
        else _MISSING
        for stage in COLOURS
    ]
    memory = row.memory
    return [
        row.spec.name,
        _spread(metrics["rtf"], 2),
        _spread(metrics["speech_lm_s"], 1),
        _spread(metrics["token_ms"], 1),
        _spread(metrics["prefill_s"], 2),
        _spread(metrics["flow_s"], 1),
        _spread(metrics["step_s"], 2),
        _spread(metrics["vocoder_s"], 2),
        f"{metrics['vocoder_s'].median / seconds:.3f}",
        ", ".join(shares),
        f"{_number(row.load_cold_s, 1)} / {_number(row.load_warm_s, 1)}",
        f"{_number(memory.peak_mb, 0)} ({_number(memory.anonymous_mb, 0)}, "
        f"{_number(memory.file_mb, 0)})",
        f"{row.bytes / 1e6:.0f}",
        ", ".join(f"{row.differences[name]:.1e}" for name in ("logits", "mel")),
    ]


def _spread(value: Statistic, digits: int) -> str:
    return f"{value.median:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def _number(value: float | None, digits: int) -> str:
    return _MISSING if value is None else f"{value:.{digits}f}"


def to_csv(bench: Bench, machine: Machine) -> str:
    """One line per row; `_s` seconds, `_ms` milliseconds, `_mb` megabytes; empty = not measured."""
    metric_columns = [f"{name}{part}" for name in METRICS for part in ("", "_min", "_max")]
    columns = [
        *("row", "status", "note", *metric_columns, "load_cold_s", "load_warm_s"),
        *("peak_rss_mb", "anonymous_mb", "file_mb", "bytes"),
        *(f"least_{stage}_s" for stage in COLOURS),
        *(*_KEY_COLUMNS, "repeat", "cpu", "fp32_gflops", "bf16_gflops", "int8_gops", "read_gb_s"),
    ]
    common = {
        **bench.peak.as_json(),
        "seconds": bench.workload.seconds,
        "prompt_seconds": bench.workload.prompt_seconds,
        "threads": bench.threads,
        "repeat": bench.repeat,
        "cpu": machine.cpu,
    }
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in bench.rows:
        line = {
            "row": row.spec.name,
            "status": row.status,
            "note": row.note,
            "load_cold_s": row.load_cold_s,
            "load_warm_s": row.load_warm_s,
            "peak_rss_mb": row.memory.peak_mb,
            "anonymous_mb": row.memory.anonymous_mb,
            "file_mb": row.memory.file_mb,
            "bytes": row.bytes,
        }
        for name, value in row.metrics.items():
            line |= {name: value.median, f"{name}_min": value.low, f"{name}_max": value.high}
        line |= {f"least_{stage}_s": value for stage, value in row.least_seconds.items()}
        writer.writerow({key: _plain(value) for key, value in (line | common).items()})
    return out.getvalue()


def _plain(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def chart(bench: Bench, title: str) -> str:
    """SVG text: a bar per measured row, its stages side by side in seconds, the RTF at its end."""
    bars = [
        Bar(
            row.spec.name,
            [
                Part(
                    seconds := row.metrics[f"{stage}_s"].median,
                    colour,
                    f"{row.spec.name}, {_LABELS[stage]}: {seconds:.2f} s",
                )
                for stage, colour in COLOURS.items()
            ],
            f"RTF {row.metrics['rtf'].median:.2f}",
        )
        for row in bench.rows
        if row.status == "ok"
    ]
    legend = {_LABELS[stage]: colour for stage, colour in COLOURS.items()}
    return bar_chart(title, bars, legend=legend)


def write_files(bench: Bench, machine: Machine, prefix: Path) -> list[Path]:
    """`prefix`.csv, .md and .svg, each whole or absent. Raises: OutputError."""
    contents = {
        "csv": to_csv(bench, machine),
        "md": markdown(bench, machine) + "\n",
        "svg": chart(bench, f"{bench.workload.seconds:g} s of speech on {machine.cpu}"),
    }
    paths = []
    for suffix, content in contents.items():
        path = prefix.with_name(f"{prefix.name}.{suffix}")
        write_file_atomically(path, content.encode())
        paths.append(path)
    return paths


@dataclass(frozen=True)
class Change:
    """A metric of a row that moved by more than the spread of both runs."""

    row: str
    metric: str
    before: float
    after: float

    @property
    def regression(self) -> bool:
        """Every metric is a cost."""
        return self.after > self.before

    def __str__(self) -> str:
        word = "REGRESSION" if self.regression else "faster"
        share = self.after / self.before - 1
        return (
            f"{word}: {self.row} {self.metric} {self.before:.3g} to {self.after:.3g} ({share:+.0%})"
        )


def changes_since(bench: Bench, earlier: Path) -> list[Change]:
    """What is outside the spread of this run and that of the CSV file `earlier`.

    A metric moved if the two ranges of repetitions do not overlap and the medians differ by more
    than 5 %. Rows are matched by name, those of only one run are left out.
    Raises: UsageError if the file is no bench's, or of another request or number of threads.
    """
    before = read_earlier(earlier)
    mine = {
        "seconds": bench.workload.seconds,
        "prompt_seconds": bench.workload.prompt_seconds,
        "threads": float(bench.threads),
    }
    changes = []
    for row in bench.rows:
        old = before.get(row.spec.name)
        if old is None or row.status != "ok" or old["status"] != "ok":
            continue
        for name in _KEY_COLUMNS:
            if float(old[name]) != mine[name]:
                raise UsageError(
                    f"{earlier}: its {name} is {float(old[name]):g}, this run's {mine[name]:g}",
                    "compare runs of the same request",
                )
        for metric in METRICS:
            change = _change(row, metric, old, earlier)
            if change:
                changes.append(change)
    return changes


def _change(row: BenchRow, metric: str, old: dict[str, str], path: Path) -> Change | None:
    try:
        median, low, high = (float(old[f"{metric}{part}"]) for part in ("", "_min", "_max"))
    except (KeyError, ValueError) as error:
        raise UsageError(f"{path}: no usable column {metric}", "make it with --output") from error
    now = row.metrics[metric]
    apart = now.low > high or now.high < low
    if apart and abs(now.median / median - 1) > _NOISE_SHARE:
        return Change(row.spec.name, metric, median, now.median)
    return None


def read_earlier(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a table of `bench`, by name. Raises: UsageError if the file is none."""
    hint = "give the CSV file that an earlier `bench --output` wrote"
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_CSV + 1)
        if len(text) > _LARGEST_CSV:
            raise UsageError(f"{path} is too large for a table of `bench`", hint)
        rows = list(csv.DictReader(io.StringIO(text.decode(), newline="")))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} can't be read ({error})", hint) from error
    if not rows or not {"row", "status", *_KEY_COLUMNS} <= rows[0].keys():
        raise UsageError(f"{path} is not a table of `bench`", hint)
    try:
        for row in rows:
            [float(row[name]) for name in _KEY_COLUMNS]
    except (TypeError, ValueError) as error:
        raise UsageError(f"{path} is damaged: {error}", hint) from error
    return {row["row"]: row for row in rows}
