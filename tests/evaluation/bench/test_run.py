"""bench on small networks: every row a process, every failure a row."""

from __future__ import annotations

import json
import shutil

import pytest
from typer.testing import CliRunner

from cosyvoice_cpu.checkpoint.sizes import TINY
from cosyvoice_cpu.cli import app
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, bundle_specs
from cosyvoice_cpu.evaluation.bench.peak_throughput import PeakThroughput
from cosyvoice_cpu.evaluation.bench.run import METRICS, run_bench
from cosyvoice_cpu.evaluation.bench.workload import Workload

PEAK = PeakThroughput(
    threads=1, fp32_gflops=100.0, int8_gops=400.0, bf16_gflops=200.0, read_gb_s=20.0
)
SHORT = Workload(seconds=1.0, prompt_seconds=1.0, decode_tokens=2, solver_steps=1)


def test_torch_and_bundle_are_measured_side_by_side_and_agree(tiny_checkpoint, tiny_bundle):
    specs = [
        EngineSpec("eager", "reference", str(tiny_checkpoint)),
        EngineSpec("bf16", "reference", str(tiny_checkpoint), "bfloat16"),
        *bundle_specs([tiny_bundle]),
    ]
    bench = run_bench(
        specs, SHORT, threads=1, repeat=2, config=TINY, peak=PEAK, measure_loading=False
    )
    assert [(row.spec.name, row.status, row.note) for row in bench.rows] == [
        ("eager", "ok", ""),
        ("bf16", "ok", ""),
        ("tiny", "ok", ""),
    ]
    for row in bench.rows:
        assert set(row.metrics) == set(METRICS)
        assert set(row.least_seconds) == {"speech_lm", "flow", "vocoder"}
        assert all(0 < value.low <= value.median <= value.high for value in row.metrics.values())
    assert bench.rows[2].differences["mel"] < 1e-4
    assert 1e-4 < bench.rows[1].differences["mel"] < 0.1  # BF16 was at work


def test_a_bundle_that_cant_be_loaded_is_a_row_without_figures(tiny_bundle, tmp_path):
    broken = tmp_path / "broken"
    shutil.copytree(tiny_bundle, broken)
    (broken / "vocoder" / "f0_predictor.onnx").unlink()
    options = "--seconds=1 --prompt-seconds=1 --repeat=1 --decode-tokens=1 --solver-steps=1".split()
    report = CliRunner().invoke(
        app, ["bench", str(tiny_bundle), str(broken), *options, "--threads=1", "--json"]
    )
    assert report.exit_code == 1
    rows = json.loads(report.stdout)["rows"]
    assert [row["status"] for row in rows] == ["ok", "refused"]
    assert rows[0]["load_warm_s"] > 0
    assert rows[1]["metrics"] == {}
    assert "f0_predictor.onnx" in rows[1]["note"]
    assert "1 of 2 rows have no figures: broken:" in report.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "there is nothing to measure"),
        (["--rows", "eager"], "the row 'eager' needs a checkpoint"),
        (["--rows", "fp4"], "there is no row 'fp4'"),
        (["--synthetic", "cosyvoice9"], "there is no synthetic checkpoint 'cosyvoice9'"),
        (["--synthetic", "cosyvoice3", "--checkpoint", "x"], "exclude each other"),
        (["voice", "--seconds", "0"], "at least 1 s"),
        (["voice", "--repeat", "0"], "0 repetitions measure nothing"),
    ],
)
def test_a_bench_of_nothing_or_nonsense_is_wrong_usage(arguments, message):
    report = CliRunner().invoke(app, ["bench", *arguments])
    assert report.exit_code == 2
    assert message in report.stderr
