"""What a request takes at least, and what is predicted of a recipe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings
from cosyvoice_cpu.checkpoint.sizes import FULL
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.peak_throughput import PeakThroughput
from cosyvoice_cpu.evaluation.bench.roofline import RECIPES, least_seconds, predict
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

PEAK = PeakThroughput(2, fp32_gflops=198.0, int8_gops=809.0, bf16_gflops=426.0, read_gb_s=31.0)


def a_request(seconds: float, prompt_seconds: float) -> Request:
    workload = Workload(seconds, prompt_seconds)
    return Request(workload, audio_settings(FULL), synthesis_settings(COSYVOICE3, FULL))


@given(st.floats(1, 1e4), st.floats(1, 1e5), st.floats(1, 1e3), st.floats(1, 60), st.floats(1, 30))
def test_a_faster_machine_is_never_predicted_slower(fp32, int8, read, seconds, prompt):
    request = a_request(seconds, prompt)
    for recipe in RECIPES:
        here = predict(recipe, FULL, request, PeakThroughput(1, fp32, int8, None, read))
        twice = PeakThroughput(1, 2 * fp32, 2 * int8, None, 2 * read)
        faster = predict(recipe, FULL, request, twice)
        assert faster.rtf == pytest.approx(here.rtf / 2)
        assert faster.peak_rss_mb == here.peak_rss_mb


def test_int8_is_predicted_faster_and_smaller_than_float32():
    float32, int8 = (predict(recipe, FULL, a_request(10, 5), PEAK) for recipe in RECIPES)
    assert int8.rtf < float32.rtf
    assert int8.peak_rss_mb < float32.peak_rss_mb
    assert int8.vocoder_s == float32.vocoder_s


# Peak RSS measured at full size, the bundle's integer weights in the cache (`docs/performance.md`).
@pytest.mark.parametrize(
    ("recipe", "seconds", "prompt_seconds", "measured_mb"),
    [
        ("float32", 7.2, 5.3, 2560.0),
        ("float32", 2.0, 2.0, 2461.0),
        ("int8", 10.0, 5.0, 1010.0),
        ("int8", 7.2, 5.3, 958.0),
        ("int8", 2.0, 2.0, 862.0),
    ],
)
def test_predicted_memory_is_within_3_percent_of_what_was_measured(
    recipe, seconds, prompt_seconds, measured_mb
):
    (costs,) = (costs for costs in RECIPES if costs.name == recipe)
    predicted = predict(costs, FULL, a_request(seconds, prompt_seconds), PEAK).peak_rss_mb
    assert predicted == pytest.approx(measured_mb, rel=0.03)


def test_the_roofline_is_below_what_was_measured_and_above_a_third_of_it():
    row = EngineSpec("eager", "reference", "unread")
    least = least_seconds(row, FULL, a_request(10, 5), PEAK)
    # docs/performance.md, eager float32: 112 ms/token, 4.35 s/step, vocoder 2.25 s.
    measured = {"speech_lm": 29.0, "flow": 43.5, "vocoder": 2.25}
    for stage, seconds in measured.items():
        assert seconds / 3 < least[stage] < seconds


def test_without_a_measured_peak_of_bf16_its_row_has_no_roofline():
    row = EngineSpec("bf16", "reference", "unread", "bfloat16")
    peak = PeakThroughput(2, 198.0, 809.0, None, 31.0)
    assert least_seconds(row, FULL, a_request(10, 5), peak) == {}
