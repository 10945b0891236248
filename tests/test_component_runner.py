"""One way to run a component on an utterance, whatever implements the stages."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cosyvoice_cpu.component_runner import (
    CALLS,
    MAIN_CALLS,
    Call,
    probed_velocity,
    repeatable_call,
    run_component,
    utterance_frames,
)
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance, random_utterances


@pytest.fixture(scope="module")
def stages(tiny_bundle: Path) -> BundleStages:
    return BundleStages.load(tiny_bundle)


@pytest.fixture(scope="module")
def utterance(stages: BundleStages) -> Utterance:
    return random_utterances(stages.manifest, prompt=5, tokens=7)[0]


def test_each_component_gives_its_arrays(stages: BundleStages, utterance: Utterance) -> None:
    shapes = {
        name: {key: array.shape for key, array in run_component(stages, name, utterance).items()}
        for name in MAIN_CALLS
    }
    rows = stages.synthesis.speech_vocabulary + 200
    assert shapes == {
        "speech_lm": {"logits": (8, rows)},
        "flow_encoder": {"mu": (80, 24), "cond": (80, 24), "speaker": (80,)},
        "flow_estimator": {"mel": (80, 14)},
        "vocoder": {"f0": (14,), "source": (1, 14 * 480), "waveform": (14 * 480,)},
    }


def test_a_mel_and_a_source_that_are_given_take_the_place_of_the_stages_own(
    stages: BundleStages, utterance: Utterance
) -> None:
    mel = np.full((80, 6), -5, np.float32)
    source = np.zeros((1, 6 * 480), np.float32)
    made = run_component(stages, "vocoder", utterance, mel=mel, source=source)
    assert set(made) == {"source", "waveform"}
    assert np.array_equal(made["waveform"], stages.mel_to_waveform(mel, source=source))


@pytest.mark.parametrize("name", CALLS)
def test_a_call_can_be_repeated_and_gives_finite_numbers(
    stages: BundleStages, utterance: Utterance, name: Call
) -> None:
    call = repeatable_call(stages, name, utterance, count=3)
    first, second = call(), call()
    assert first.shape == second.shape
    assert np.isfinite(first).all()
    if name != "decode":  # which goes on behind what it has decoded
        assert np.array_equal(first, second)


def test_the_velocity_is_probed_at_three_times_for_both_halves_of_the_guidance(
    stages: BundleStages, utterance: Utterance
) -> None:
    condition = stages.flow_condition(
        utterance.tokens,
        prompt_tokens=utterance.prompt_tokens,
        prompt_mel=utterance.prompt_mel,
        embedding=utterance.embedding,
    )
    mel = np.full((80, utterance_frames(stages, utterance)), -5, np.float32)
    velocity = probed_velocity(stages, condition, mel)
    assert velocity.shape == (6, 80, 24)
    assert not np.array_equal(velocity[0], velocity[1])


def test_a_part_without_a_network_is_refused(stages: BundleStages, utterance: Utterance) -> None:
    with pytest.raises(UsageError) as refused:
        run_component(stages, "text_tokenizer", replace(utterance))
    assert refused.value.what == "text_tokenizer is not run on utterances"
    assert refused.value.hint == "known: speech_lm, flow_encoder, flow_estimator, vocoder"
