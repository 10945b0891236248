"""bench, profile and tune on small networks: every row a process, every failure a row."""

from __future__ import annotations

import json
import shutil
import time

import numpy as np
import pytest
from typer.testing import CliRunner

from cosyvoice_cpu.checkpoint.sizes import TINY
from cosyvoice_cpu.cli import app
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec, bundle_specs
from cosyvoice_cpu.evaluation.bench.inputs import Materials
from cosyvoice_cpu.evaluation.bench.peak_throughput import Ceilings
from cosyvoice_cpu.evaluation.bench.profile import profile_bundle
from cosyvoice_cpu.evaluation.bench.run import METRICS, run_bench
from cosyvoice_cpu.evaluation.bench.tune import tune_threads
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from tools.measure_open_sessions import ladder_figures

CEILINGS = Ceilings(
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
        specs, SHORT, threads=1, repeat=2, config=TINY, ceilings=CEILINGS, measure_loading=False
    )
    assert [(row.spec.name, row.status, row.note) for row in bench.rows] == [
        ("eager", "ok", ""),
        ("bf16", "ok", ""),
        ("tiny", "ok", ""),
    ]
    for row in bench.rows:
        assert set(row.metrics) == set(METRICS)
        assert set(row.bounds) == {"speech_lm", "flow", "vocoder"}
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


def _no_quantization(source, path, force):
    raise AssertionError("no row asks for it")


def test_rows_made_of_a_checkpoint_are_kept_apart_by_length_and_removed(tiny_checkpoint, tmp_path):
    said: list[str] = []
    materials = Materials(tmp_path, SHORT, 1, said.append, _no_quantization)
    first = materials.rows(["eager", "dynamic"], tiny_checkpoint)
    assert [spec.kind for spec in first] == ["reference", "bundle"]
    again = Materials(tmp_path, SHORT, 1, said.append, _no_quantization)
    assert again.rows(["dynamic"], tiny_checkpoint) == first[1:]
    assert len(said) == 1
    again.remove()  # it made nothing
    assert len(list(tmp_path.iterdir())) == 1
    materials.remove()
    assert list(tmp_path.iterdir()) == []


def test_two_bundles_of_one_name_are_told_apart(tmp_path):
    names = [spec.name for spec in bundle_specs([tmp_path / "a" / "voice", tmp_path / "b/voice"])]
    assert names == [str(tmp_path / "a" / "voice"), str(tmp_path / "b" / "voice")]


def test_a_profile_names_every_stage_and_the_operators_in_it(tiny_bundle):
    times = profile_bundle(tiny_bundle, SHORT, 1)
    assert [time.stage for time in times] == [
        "speech_lm prefill",
        "speech_lm decode",
        "flow_encoder",
        "flow_estimator",
        "f0_predictor",
        "excitation",
        "vocoder generator",
    ]
    assert [time.calls for time in times] == [1, 24, 1, 10, 1, 1, 1]
    for stage in times:
        assert stage.seconds == pytest.approx(sum(part.seconds for part in stage.operators))
    assert "GroupQueryAttention" in {part.operator for part in times[1].operators}
    assert "Conv" in {part.operator for part in times[-1].operators}


def test_sessions_outside_a_profile_record_nothing(tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    profile_bundle(tiny_bundle, SHORT, 1)
    BundleStages.load(tiny_bundle).mel_to_f0(np.zeros((80, 20), np.float32))
    assert list(tmp_path.iterdir()) == []


def test_tuning_tries_every_number_and_picks_one_of_them(tiny_bundle):
    tuning = tune_threads(tiny_bundle, [1, 2], repeat=1)
    assert [candidate.threads for candidate in tuning.candidates] == [1, 2]
    assert tuning.best in {1, 2}


def test_the_profile_command_prints_shares_and_one_json_object(tiny_bundle):
    command = ["profile", str(tiny_bundle), "--seconds=1", "--prompt-seconds=1", "--threads=1"]
    table = CliRunner().invoke(app, command)
    assert table.exit_code == 0
    assert "flow_estimator" in table.stdout
    assert "all kernels" in table.stdout
    content = json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout)
    assert len(content["stages"]) == 7


def test_memory_and_loading_of_open_sizes_are_told(tiny_bundle):
    figures = ladder_figures(tiny_bundle, 1, 2)
    assert figures["step_s"] > 0
    assert figures["loading_cpu_s"] >= 0
    assert {"anonymous_mb", "file_mb"} < figures.keys()


def test_idle_sessions_of_all_stages_use_no_processor_time(tiny_bundle):
    stages = BundleStages.load(tiny_bundle, threads=2)
    stages.generate_speech_tokens([1, 2, 3], min_tokens=3, max_tokens=3)
    mel = np.full((80, 60), -5.0, np.float32)
    stages.mel_to_waveform(mel)
    started = time.process_time()
    time.sleep(0.5)
    # Three sessions with spinning threads would use 1.5 s here.
    assert time.process_time() - started < 0.25


def test_a_released_stage_opens_again_and_computes_the_same(tiny_bundle):
    stages = BundleStages.load(tiny_bundle)
    mel = np.random.default_rng(0).normal(-5, 2, (80, 60)).astype(np.float32)
    before = stages.mel_to_waveform(mel)
    stages.release("vocoder")
    stages.release("speech_lm")  # never opened: nothing to do
    np.testing.assert_array_equal(stages.mel_to_waveform(mel), before)
    with pytest.raises(KeyError):
        stages.release("tokenizer")
