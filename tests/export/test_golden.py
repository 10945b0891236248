"""The exported float32 bundle against arrays that the original computed from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
from support.networks_golden import ARRAYS, CHECKPOINT, FLOW_PROMPT, ids, relative_error
from support.networks_golden import stages as reference

from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.stages import load_bundle

TENSOR, MEL, WAVEFORM, CHAIN = 1e-4, 1e-3, 2e-3, 5e-3
SHAPES = ["static", "dynamic"]
LM_PROMPTS = {
    "zs": {
        "prompt_text_ids": ids("lm_prompt_text_ids"),
        "prompt_speech_ids": ids("lm_prompt_speech_ids"),
    },
    "xl": {},
}


@pytest.fixture(scope="module", params=SHAPES)
def stages(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    bundle = tmp_path_factory.mktemp("golden") / "bundle"
    export_checkpoint(CHECKPOINT, bundle, shapes=request.param, max_seconds=6, front_end=False)
    return load_bundle(bundle)


@pytest.mark.parametrize("of_reference", [True, False])
def test_negative_flow_tokens_count_as_zero_and_other_negative_ids_are_named(
    stages: Stages, of_reference: bool
) -> None:
    engine = reference() if of_reference else stages
    clamped = engine.flow_condition([-1, 7, -300], **FLOW_PROMPT)["mu"]
    assert np.array_equal(clamped, engine.flow_condition([0, 7, 0], **FLOW_PROMPT)["mu"])
    with pytest.raises(TextError, match="text id -1 is outside the model's 1024"):
        engine.speech_lm_logits([5, -1], [])
    with pytest.raises(SynthesisError, match="speech id -2 is outside the model's 700"):
        engine.speech_lm_logits([5], [], prompt_speech_ids=[3, -2])


@pytest.mark.parametrize("case", LM_PROMPTS)
def test_bundle_logits_are_the_originals(stages: Stages, case: str) -> None:
    got = stages.speech_lm_logits(ids("lm_text_ids"), ids("lm_forced_ids"), **LM_PROMPTS[case])
    assert relative_error(got, ARRAYS[f"lm_{case}_logits"]) <= TENSOR


@pytest.mark.parametrize("case", LM_PROMPTS)
def test_bundle_greedy_tokens_are_the_originals(stages: Stages, case: str) -> None:
    got = stages.generate_speech_tokens(
        ids("lm_text_ids"), sampler="greedy", original_stop_rule=True, **LM_PROMPTS[case]
    )
    assert got == ids(f"lm_{case}_greedy")


@pytest.mark.parametrize("row", range(6))
def test_bundle_greedy_tokens_of_short_texts_are_the_originals(stages: Stages, row: int) -> None:
    text = [int(i) for i in ARRAYS["lm_many_text_ids"][row] if i >= 0]
    got = stages.generate_speech_tokens(text, sampler="greedy", original_stop_rule=True)
    assert got == [int(i) for i in ARRAYS["lm_many_greedy"][row] if i >= 0]


@pytest.mark.parametrize("finalize", [True, False])
def test_bundle_mu_and_speaker_are_the_originals(stages: Stages, finalize: bool) -> None:
    condition = stages.flow_condition(ids("flow_token"), finalize=finalize, **FLOW_PROMPT)
    want = ARRAYS["flow_mu_final" if finalize else "flow_mu_open"][0]
    assert relative_error(condition["mu"], want) <= TENSOR
    assert relative_error(condition["speaker"], ARRAYS["flow_spks"][0]) <= TENSOR


def test_bundle_velocity_of_the_first_step_is_the_originals(stages: Stages) -> None:
    condition = stages.flow_condition(ids("flow_token"), **FLOW_PROMPT)
    bins, frames = condition["mu"].shape
    x = flow_noise(frames, bins, 15000)
    got = stages.flow_velocity(
        np.stack([x, x]),
        np.ones((2, 1, frames), np.float32),
        np.stack([condition["mu"], np.zeros((bins, frames), np.float32)]),
        np.zeros(2, np.float32),
        np.stack([condition["speaker"], np.zeros(bins, np.float32)]),
        np.stack([condition["cond"], np.zeros((bins, frames), np.float32)]),
    )
    want = ARRAYS["cfm_v_step0_cond_uncond"]
    assert relative_error(got[:, :, : want.shape[2]], want) <= TENSOR


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("finalize", [True, False])
def test_bundle_mel_is_the_originals(stages: Stages, streaming: bool, finalize: bool) -> None:
    got = stages.tokens_to_mel(
        ids("flow_token"), streaming=streaming, finalize=finalize, **FLOW_PROMPT
    )
    name = f"flow_mel_{'stream' if streaming else 'full'}_{'final' if finalize else 'open'}"
    assert relative_error(got, ARRAYS[name][0]) <= MEL


@pytest.mark.parametrize("finalize", [True, False])
def test_bundle_f0_and_waveform_are_the_originals(stages: Stages, finalize: bool) -> None:
    mel, end = ARRAYS["voc_mel"][0], "final" if finalize else "open"
    f0 = stages.mel_to_f0(mel, finalize=finalize)
    assert relative_error(f0, ARRAYS[f"voc_f0_{end}_f64"][0]) <= TENSOR
    waveform = stages.mel_to_waveform(mel, finalize=finalize)
    assert relative_error(waveform, ARRAYS[f"voc_wav_{end}"][0]) <= WAVEFORM


def test_bundle_excitation_is_the_originals(stages: Stages) -> None:
    source = stages.f0_to_source(ARRAYS["voc_f0_final_f64"][0].astype(np.float32))
    assert relative_error(source, ARRAYS["voc_source"][0]) <= WAVEFORM


def test_bundle_waveform_without_excitation_is_the_originals(stages: Stages) -> None:
    silent = np.zeros((1, ARRAYS["voc_wav_final"].shape[1]), np.float32)
    waveform = stages.mel_to_waveform(ARRAYS["voc_mel"][0], source=silent)
    assert relative_error(waveform[::4], ARRAYS["voc_wav_zero_source_every4"][0]) <= WAVEFORM


def test_bundle_tokens_to_waveform_are_the_originals(stages: Stages) -> None:
    mel = stages.tokens_to_mel(
        ids("t2w_token"),
        prompt_tokens=ids("t2w_prompt_token"),
        prompt_mel=ARRAYS["t2w_prompt_feat"][0],
        embedding=ARRAYS["t2w_embedding"][0],
    )
    waveform = stages.mel_to_waveform(mel)
    assert relative_error(waveform[::8], ARRAYS["t2w_full_wav_every8"][0]) <= CHAIN
