"""Checks of audio: what is wrong makes no figure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
from cosyvoice_cpu.component_runner import guidance_share
from cosyvoice_cpu.evaluation.bench.smoke_checks import (
    Results,
    differences,
    guidance_problem,
    problem,
)
from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages


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


def test_a_row_whose_guidance_changes_nothing_does_not_count():
    assert guidance_problem(0.0) == "its flow is the same with and without guidance"
    assert guidance_problem(float("nan")) is not None
    assert guidance_problem(0.3) is None
    assert guidance_problem(None) is None  # a preset without guidance


def test_an_engine_that_computes_the_conditioned_row_twice_has_no_guidance(tiny_bundle):
    stages = BundleStages.load(tiny_bundle)
    workload = Workload(seconds=1.0, prompt_seconds=1.0)
    utterance = Request(workload, stages.audio, stages.synthesis).utterance
    share = guidance_share(stages, utterance, DEFAULT_PRESET)
    assert share is not None
    assert share > 0.01
    whole = stages.flow_velocity

    def conditioned_twice(*arrays, **options):
        return whole(*(np.stack([array[0]] * len(array)) for array in arrays), **options)

    stages.flow_velocity = conditioned_twice
    assert guidance_share(stages, utterance, DEFAULT_PRESET) == 0.0
