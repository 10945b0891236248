"""What a bench is made of: counts of work, probes, checks of audio, tables, comparisons."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.checkpoint.sizes import FULL, TINY
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.flops import (
    flow_step_work,
    prefill_operations,
    speech_lm_weights,
    vocoder_operations,
)
from cosyvoice_cpu.evaluation.bench.peak_throughput import Ceilings
from cosyvoice_cpu.evaluation.bench.probe_graphs import int8_matmul_model, matmul_model
from cosyvoice_cpu.evaluation.bench.report import chart, compare, markdown, to_csv, write_files
from cosyvoice_cpu.evaluation.bench.run import METRICS, Bench, Row, Statistic
from cosyvoice_cpu.evaluation.bench.smoke_checks import Results, differences, problem
from cosyvoice_cpu.evaluation.bench.tune import Candidate, choose, thread_candidates
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.system.machine import describe_machine

CEILINGS = Ceilings(
    threads=2, fp32_gflops=200.0, int8_gops=800.0, bf16_gflops=400.0, read_gb_s=30.0
)


def a_bench(**rtf: tuple[float, float, float]) -> Bench:
    """A bench whose rows have these medians, minima and maxima in every column."""
    rows = [
        Row(
            EngineSpec(name, "bundle", "voice"),
            bytes=1_000_000,
            metrics={metric: Statistic(*values) for metric in METRICS},
            differences={"logits": 1e-6, "mel": 1e-6, "waveform": 1e-6},
            bounds={"speech_lm": 1.0, "flow": 1.0, "vocoder": 1.0},
        )
        for name, values in rtf.items()
    ]
    return Bench(Workload(), threads=2, repeat=3, ceilings=CEILINGS, rows=rows)


# Work


def test_the_counted_work_of_the_official_sizes_is_that_of_the_performance_notes():
    step = flow_step_work(FULL.flow.estimator, 750)
    assert 10 * (step.linear + step.attention) / 1e12 == pytest.approx(6.55, rel=0.01)
    assert step.attention / step.operations == pytest.approx(0.15, abs=0.01)
    assert speech_lm_weights(FULL.speech_lm) / 1e6 == pytest.approx(364, rel=0.01)
    assert vocoder_operations(FULL.vocoder, 50) / 1e9 == pytest.approx(33.4, rel=0.02)


def test_the_weights_of_the_speech_lm_are_those_of_its_torch_layers():
    from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM

    network = SpeechLM(TINY.speech_lm)
    matrices = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if parameter.dim() == 2 and "embedding" not in name
    )
    assert speech_lm_weights(TINY.speech_lm) == matrices


@given(st.integers(1, 4000))
def test_longer_requests_are_more_work_and_attention_grows_with_the_square(frames):
    small, large = (flow_step_work(FULL.flow.estimator, n) for n in (frames, 2 * frames))
    assert large.linear == 2 * small.linear
    assert large.attention == 4 * small.attention
    assert prefill_operations(FULL.speech_lm, 2 * frames) > prefill_operations(
        FULL.speech_lm, frames
    )


# Probes


def test_the_float32_probe_is_a_matrix_product():
    session = ort.InferenceSession(matmul_model(5, 64, 32), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(0, 1, (5, 64)).astype(np.float32)
    weight = np.random.default_rng(0).normal(0, 1, (64, 32)).astype(np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], x @ weight, rtol=1e-4, atol=1e-4)


def test_the_int8_probe_is_a_matrix_product_up_to_quantization():
    session = ort.InferenceSession(int8_matmul_model(5, 64, 32), providers=["CPUExecutionProvider"])
    x = np.random.default_rng(1).normal(0, 1, (5, 64)).astype(np.float32)
    weight = np.random.default_rng(0).integers(-127, 128, (64, 32)).astype(np.float32) / 127
    error = session.run(None, {"x": x})[0] - x @ weight
    assert np.abs(error).max() < 0.05 * np.abs(x @ weight).max()


# Checks of audio


def some_results(seed: int = 0) -> Results:
    rng = np.random.default_rng(seed)
    return Results(
        logits=rng.normal(0, 3, 100).astype(np.float32),
        mel=rng.normal(-5, 2, (80, 50)).astype(np.float32),
        waveform=(0.1 * rng.normal(0, 1, 24000)).astype(np.float32),
    )


def test_sound_audio_that_differs_as_int8_does_counts():
    first = some_results()
    noise = np.random.default_rng(1).normal(0, 1, first.mel.shape).astype(np.float32)
    close = replace(first, mel=first.mel + 0.05 * noise)
    assert problem(close, first, 24000) is None
    assert differences(close, first)["mel"] == pytest.approx(0.025, rel=0.1)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"waveform": np.full(24000, np.nan, np.float32)}, "its waveform is not finite"),
        ({"waveform": np.zeros(24000, np.float32)}, "its audio is silent"),
        ({"waveform": np.zeros(23520, np.float32)}, "its audio has 23520 samples, not 24000"),
        ({"waveform": np.full(24000, 0.99, np.float32)}, "its audio is clipped"),
        ({"mel": some_results(7).mel}, "its mel differs from the first row's by 1"),
        ({"logits": some_results(7).logits}, "its logits differs from the first row's by 1"),
    ],
)
def test_audio_that_is_wrong_makes_no_figure(broken, reason):
    first = some_results()
    assert problem(replace(first, **broken), first, 24000).startswith(reason)


# Tables


def test_a_table_has_a_line_per_row_and_says_why_a_row_has_no_figures():
    bench = a_bench(eager=(7.0, 6.9, 7.2))
    bench.rows.append(
        Row(EngineSpec("int8", "bundle", "b"), status="refused", note="its audio is silent")
    )
    text = markdown(bench, describe_machine())
    assert "| eager | 7.00 (6.90 to 7.20) |" in text
    assert "| int8 | refused | – |" in text
    assert "int8: refused, its audio is silent" in text
    assert "200 GFLOP/s FP32, 400 GFLOP/s BF16, 800 GOP/s INT8, 30.0 GB/s read" in text


def test_the_chart_is_a_picture_with_three_stages_per_measured_row(tmp_path):
    bench = a_bench(eager=(7.0, 6.9, 7.2), **{"a<b&c": (5.0, 4.9, 5.1)})
    bench.rows.append(Row(EngineSpec("broken", "bundle", "b"), status="refused"))
    root = ET.fromstring(chart(bench, "10 s of speech"))
    titles = [node.text for node in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 6
    assert "a<b&c, vocoder: 5.00 s" in titles


def test_a_run_compared_with_itself_has_no_changes(tmp_path):
    bench = a_bench(eager=(7.0, 6.9, 7.2), onnx=(5.0, 4.9, 5.1))
    write_files(bench, describe_machine(), tmp_path / "run")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.csv", "run.md", "run.svg"]
    assert compare(bench, tmp_path / "run.csv") == []


def test_what_is_slower_than_the_spread_of_both_runs_is_a_regression(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(to_csv(a_bench(onnx=(5.0, 4.9, 5.1), int8=(2.0, 1.9, 2.1)), describe_machine()))
    changes = compare(a_bench(onnx=(6.0, 5.9, 6.1), int8=(1.5, 1.4, 1.6), new=(1, 1, 1)), old)
    words = {str(change) for change in changes}
    assert "REGRESSION: onnx rtf 5 to 6 (+20%)" in words
    assert "faster: int8 rtf 2 to 1.5 (-25%)" in words
    assert {change.row for change in changes} == {"onnx", "int8"}


def test_what_lies_inside_the_spread_or_within_five_percent_is_no_change(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(to_csv(a_bench(onnx=(5.0, 4.0, 6.0), int8=(2.0, 2, 2)), describe_machine()))
    assert compare(a_bench(onnx=(6.0, 5.9, 7.0), int8=(2.08, 2.08, 2.08)), old) == []


def test_runs_of_different_requests_are_not_compared(tmp_path):
    old = tmp_path / "old.csv"
    old.write_text(to_csv(a_bench(onnx=(5.0, 4.9, 5.1)), describe_machine()))
    other = replace(a_bench(onnx=(5.0, 4.9, 5.1)), workload=Workload(seconds=4.0))
    with pytest.raises(UsageError, match="its seconds is 10, this run's 4"):
        compare(other, old)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "row,status,seconds\n", "\x00\x01"])
def test_a_file_that_is_no_table_of_bench_is_refused(tmp_path, text):
    old = tmp_path / "old.csv"
    old.write_text(text)
    with pytest.raises(UsageError, match=r"old\.csv"):
        compare(a_bench(onnx=(5.0, 4.9, 5.1)), old)


# Lengths and threads


@pytest.mark.parametrize(
    "lengths", [{"seconds": 0.5}, {"prompt_seconds": 0}, {"seconds": 299}, {"decode_tokens": 0}]
)
def test_a_request_that_no_model_takes_is_refused(lengths):
    with pytest.raises(UsageError):
        Workload(**lengths)


def test_equal_workloads_have_equal_inputs_in_any_process():
    one, other = Workload(seconds=2.0).inputs, Workload(seconds=2.0).inputs
    assert one.tokens == other.tokens
    np.testing.assert_array_equal(one.prompt_mel, other.prompt_mel)


@given(st.integers(1, 512), st.data())
def test_the_numbers_of_threads_to_try_are_few_and_hold_default_and_all(cpus, data):
    default = data.draw(st.integers(1, cpus))
    numbers = thread_candidates(cpus, default)
    assert {1, default, cpus} <= set(numbers)
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == cpus
    assert len(numbers) <= 28


def test_fewer_threads_win_over_a_gain_below_three_percent():
    seconds = {1: 2.0, 2: 1.02, 4: 1.0, 8: 1.5}
    candidates = [Candidate(n, Statistic(s, s, s)) for n, s in seconds.items()]
    assert choose(candidates) == 2
