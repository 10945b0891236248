"""The reference networks against arrays that the original computed from the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.networks_golden import ARRAYS, FLOW_PROMPT, ids, relative_error, stages

TENSOR, MEL, WAVEFORM = 2e-5, 2e-4, 1e-3  # relative to the largest value
ESTIMATOR_INPUTS = [
    ARRAYS[name] for name in ("est_x", "est_mask", "est_mu", "est_t", "est_spks", "est_cond")
]
LM_PROMPTS = {
    "zs": {
        "prompt_text_ids": ids("lm_prompt_text_ids"),
        "prompt_speech_ids": ids("lm_prompt_speech_ids"),
    },
    "xl": {},
}


@pytest.mark.parametrize("case", LM_PROMPTS)
def test_speech_lm_logits_are_the_originals(case: str) -> None:
    got = stages().speech_lm_logits(ids("lm_text_ids"), ids("lm_forced_ids"), **LM_PROMPTS[case])
    assert relative_error(got, ARRAYS[f"lm_{case}_logits"]) <= TENSOR


@pytest.mark.parametrize("case", LM_PROMPTS)
def test_prefill_rows_are_the_originals_bit_for_bit(case: str) -> None:
    prompt = LM_PROMPTS[case]
    text = [*prompt.get("prompt_text_ids", ()), *ids("lm_text_ids")]
    with torch.inference_mode():
        rows = stages().embed_prompt(text, prompt.get("prompt_speech_ids", ()))
    assert np.array_equal(rows.numpy(), ARRAYS[f"lm_{case}_prefill"])


@pytest.mark.parametrize("case", LM_PROMPTS)
def test_greedy_tokens_are_the_originals(case: str) -> None:
    got = stages().generate_speech_tokens(
        ids("lm_text_ids"), sampler="greedy", original_stop_rule=True, **LM_PROMPTS[case]
    )
    assert got == ids(f"lm_{case}_greedy")


@pytest.mark.parametrize("row", range(6))
def test_greedy_tokens_of_short_texts_are_the_originals(row: int) -> None:
    text = [int(i) for i in ARRAYS["lm_many_text_ids"][row] if i >= 0]
    want = [int(i) for i in ARRAYS["lm_many_greedy"][row] if i >= 0]
    got = stages().generate_speech_tokens(text, sampler="greedy", original_stop_rule=True)
    assert got == want


@pytest.mark.parametrize("finalize", [True, False])
def test_mu_is_the_originals(finalize: bool) -> None:
    condition = stages().flow_condition(ids("flow_token"), finalize=finalize, **FLOW_PROMPT)
    want = ARRAYS["flow_mu_final" if finalize else "flow_mu_open"][0]
    assert relative_error(condition["mu"], want) <= TENSOR


def test_the_speaker_projection_is_the_originals() -> None:
    condition = stages().flow_condition(ids("flow_token"), **FLOW_PROMPT)
    assert relative_error(condition["speaker"], ARRAYS["flow_spks"][0]) <= TENSOR


def test_cond_is_the_prompts_mel_and_then_zeros() -> None:
    cond = stages().flow_condition(ids("flow_token"), **FLOW_PROMPT)["cond"]
    prompt = FLOW_PROMPT["prompt_mel"].T
    assert np.array_equal(cond[:, : prompt.shape[1]], prompt)
    assert not cond[:, prompt.shape[1] :].any()


@pytest.mark.parametrize("streaming", [False, True])
def test_velocity_on_frames_is_the_originals(streaming: bool) -> None:
    frames = ARRAYS["est_mask"] > 0
    got = stages().flow_velocity(*ESTIMATOR_INPUTS, streaming=streaming)
    want = ARRAYS["est_out_stream" if streaming else "est_out_full"]
    assert relative_error(np.where(frames, got, 0), np.where(frames, want, 0)) <= TENSOR


def test_the_time_embedding_is_the_originals() -> None:
    with torch.inference_mode():
        got = stages().flow_estimator.time_embed(torch.tensor(ARRAYS["est_t"]))
    assert relative_error(got.numpy(), ARRAYS["est_time_embed"]) <= TENSOR


def test_the_input_embedding_is_the_originals_on_padding_too() -> None:
    x, _, mu, _, speaker, cond = map(torch.tensor, ESTIMATOR_INPUTS)
    with torch.inference_mode():
        got = stages().flow_estimator.input_embed(x, cond, mu, speaker)
    assert relative_error(got[1, -60:].numpy(), ARRAYS["est_input_embed_b1_tail"]) <= TENSOR


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("finalize", [True, False])
def test_mel_after_ten_steps_is_the_originals(streaming: bool, finalize: bool) -> None:
    got = stages().tokens_to_mel(
        ids("flow_token"), streaming=streaming, finalize=finalize, **FLOW_PROMPT
    )
    name = f"flow_mel_{'stream' if streaming else 'full'}_{'final' if finalize else 'open'}"
    assert relative_error(got, ARRAYS[name][0]) <= MEL


@pytest.mark.parametrize("finalize", [True, False])
def test_f0_is_the_originals_to_the_last_float32_digit(finalize: bool) -> None:
    got = stages().mel_to_f0(ARRAYS["voc_mel"][0], finalize=finalize)
    want = ARRAYS["voc_f0_final_f64" if finalize else "voc_f0_open_f64"][0]
    assert relative_error(got, want) <= 1e-7


def test_harmonics_and_voicing_are_the_originals() -> None:
    excitation = stages().vocoder.m_source
    f0 = torch.tensor(ARRAYS["voc_f0_final_f64"]).float()
    with torch.inference_mode():
        sines, voiced = excitation.sines(f0), excitation.voiced(f0)
    assert np.abs(sines.numpy() - ARRAYS["voc_harmonics_per_frame"]).max() <= 1e-7
    assert np.array_equal(voiced[0].numpy(), ARRAYS["voc_uv_per_frame"])


def test_the_excitation_source_is_the_originals() -> None:
    got = stages().f0_to_source(ARRAYS["voc_f0_final_f64"][0].astype(np.float32))
    assert relative_error(got, ARRAYS["voc_source"][0]) <= 1e-6


@pytest.mark.parametrize("finalize", [True, False])
def test_the_waveform_is_the_originals(finalize: bool) -> None:
    got = stages().mel_to_waveform(ARRAYS["voc_mel"][0], finalize=finalize)
    want = ARRAYS["voc_wav_final" if finalize else "voc_wav_open"][0]
    assert relative_error(got, want) <= WAVEFORM


def test_the_waveform_without_excitation_is_the_originals() -> None:
    silence = np.zeros((1, ARRAYS["voc_wav_final"].shape[1]), np.float32)
    got = stages().mel_to_waveform(ARRAYS["voc_mel"][0], source=silence)
    assert relative_error(got[::4], ARRAYS["voc_wav_zero_source_every4"][0]) <= WAVEFORM


def test_tokens_to_waveform_are_the_originals() -> None:
    mel = stages().tokens_to_mel(
        ids("t2w_token"),
        prompt_tokens=ids("t2w_prompt_token"),
        prompt_mel=ARRAYS["t2w_prompt_feat"][0],
        embedding=ARRAYS["t2w_embedding"][0],
    )
    got = stages().mel_to_waveform(mel)[::8]
    # Random weights let the excitation amplify mel errors of 3e-7 to 1e-3 here.
    assert relative_error(got, ARRAYS["t2w_full_wav_every8"][0]) <= 5e-3
