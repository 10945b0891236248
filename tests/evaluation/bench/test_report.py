"""A bench as a table and a chart, and compared with an earlier one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.peak_throughput import PeakThroughput
from cosyvoice_cpu.evaluation.bench.report import (
    changes_since,
    chart,
    markdown,
    to_csv,
    write_files,
)
from cosyvoice_cpu.evaluation.bench.run import METRICS, Bench, BenchRow, Statistic
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.system.machine import describe_machine

PEAK = PeakThroughput(
    threads=2, fp32_gflops=200.0, int8_gops=800.0, bf16_gflops=400.0, read_gb_s=30.0
)


def a_bench(**rtf: tuple[float, float, float]) -> Bench:
    """A bench whose rows have these medians, minima and maxima in every column."""
    rows = [
        BenchRow(
            EngineSpec(name, "bundle", "voice"),
            bytes=1_000_000,
            metrics={metric: Statistic(*values) for metric in METRICS},
            differences={"logits": 1e-6, "mel": 1e-6, "waveform": 1e-6},
            least_seconds={"speech_lm": 1.0, "flow": 1.0, "vocoder": 1.0},
        )
        for name, values in rtf.items()
    ]
    return Bench(Workload(), threads=2, repeat=3, peak=PEAK, rows=rows)


def test_a_table_has_a_line_per_row_and_says_why_a_row_has_no_figures():
    bench = a_bench(eager=(7.0, 6.9, 7.2))
    bench.rows.append(
        BenchRow(EngineSpec("int8", "bundle", "b"), status="refused", note="its audio is silent")
    )
    text = markdown(bench, describe_machine())
    assert "| eager | 7.00 (6.90 to 7.20) |" in text
    assert "| int8 | refused | – |" in text
    assert "int8: refused, its audio is silent" in text
    assert "200 GFLOP/s FP32, 400 GFLOP/s BF16, 800 GOP/s INT8, 30.0 GB/s read" in text


def test_the_chart_is_a_picture_with_three_stages_per_measured_row(tmp_path):
    bench = a_bench(eager=(7.0, 6.9, 7.2), **{"a<b&c": (5.0, 4.9, 5.1)})
    bench.rows.append(BenchRow(EngineSpec("broken", "bundle", "b"), status="refused"))
    root = ET.fromstring(chart(bench, "10 s of speech"))
    titles = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 6
    assert "a<b&c, vocoder: 5.00 s" in titles


def test_a_run_compared_with_itself_has_no_changes(tmp_path):
    bench = a_bench(eager=(7.0, 6.9, 7.2), onnx=(5.0, 4.9, 5.1))
    write_files(bench, describe_machine(), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.csv", "run.md", "run.svg"]
    assert changes_since(bench, tmp_path / "run.csv") == []


def test_what_is_slower_than_the_spread_of_both_runs_is_a_regression(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(to_csv(a_bench(onnx=(5.0, 4.9, 5.1), int8=(2.0, 1.9, 2.1)), describe_machine()))
    changes = changes_since(a_bench(onnx=(6.0, 5.9, 6.1), int8=(1.5, 1.4, 1.6), new=(1, 1, 1)), old)
    words = {str(change) for change in changes}
    assert "REGRESSION: onnx rtf 5 to 6 (+20%)" in words
    assert "faster: int8 rtf 2 to 1.5 (-25%)" in words
    assert {change.row for change in changes} == {"onnx", "int8"}


def test_what_lies_inside_the_spread_or_within_five_percent_is_no_change(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(to_csv(a_bench(onnx=(5.0, 4.0, 6.0), int8=(2.0, 2, 2)), describe_machine()))
    assert changes_since(a_bench(onnx=(6.0, 5.9, 7.0), int8=(2.08, 2.08, 2.08)), old) == []


def test_runs_of_different_requests_are_not_compared(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(to_csv(a_bench(onnx=(5.0, 4.9, 5.1)), describe_machine()))
    other = replace(a_bench(onnx=(5.0, 4.9, 5.1)), workload=Workload(seconds=4.0))
    with pytest.raises(UsageError, match="its seconds is 10, this run's 4"):
        changes_since(other, old)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "row,status,seconds\n", "\x00\x01"])
def test_a_file_that_is_no_table_of_bench_is_refused(tmp_path, text):
    old = tmp_path / "old.csv"
    old.write_text(text)
    with pytest.raises(UsageError, match=r"old\.csv"):
        changes_since(a_bench(onnx=(5.0, 4.9, 5.1)), old)
