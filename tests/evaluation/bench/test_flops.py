"""Counts of work: those of the official sizes, and how they grow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cosyvoice_cpu.checkpoint.sizes import FULL, TINY
from cosyvoice_cpu.evaluation.bench.flops import (
    GUIDED_BATCH,
    flow_step_flops,
    prefill_flops,
    speech_lm_weights,
    vocoder_flops,
)


def test_the_counted_work_of_the_official_sizes_is_that_of_the_performance_notes():
    step = flow_step_flops(FULL.flow.estimator, 750)
    assert 10 * (step.linear + step.attention) / 1e12 == pytest.approx(6.55, rel=0.01)
    assert step.attention / step.total == pytest.approx(0.15, abs=0.01)
    assert speech_lm_weights(FULL.speech_lm) / 1e6 == pytest.approx(364, rel=0.01)
    assert vocoder_flops(FULL.vocoder, 50) / 1e9 == pytest.approx(33.4, rel=0.02)


def test_the_weights_of_the_speech_lm_are_those_of_its_torch_layers():
    from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM

    network = SpeechLM(TINY.speech_lm)
    matrices = sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if parameter.dim() == 2 and "embed" not in name
    )
    assert speech_lm_weights(TINY.speech_lm) == matrices


@given(st.integers(1, 4000))
def test_longer_requests_are_more_work_and_attention_grows_with_the_square(frames):
    small, large = (flow_step_flops(FULL.flow.estimator, n) for n in (frames, 2 * frames))
    assert large.linear == 2 * small.linear
    assert large.attention == 4 * small.attention
    assert prefill_flops(FULL.speech_lm, 2 * frames) > prefill_flops(FULL.speech_lm, frames)


def counted(network: torch.nn.Module, *inputs: torch.Tensor) -> float:
    """Operations of a call as torch counts them; it can't count the CPU's fused attention."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(*inputs)
    return float(counter.get_total_flops())


def test_a_flow_step_is_what_torch_counts_of_the_reference():
    from cosyvoice_cpu.networks.reference.flow_estimator import FlowEstimator

    config, frames = TINY.flow.estimator, 300
    mel = torch.zeros(GUIDED_BATCH, config.mel_dim, frames)
    rows = torch.ones(GUIDED_BATCH)
    speaker = torch.zeros(GUIDED_BATCH, config.spk_dim)
    mask = torch.ones(GUIDED_BATCH, 1, frames)
    torch_count = counted(FlowEstimator(config), mel, mask, mel, rows, speaker, mel)
    # Torch's count has the modulation by time in it, of one row per guided half.
    assert flow_step_flops(config, frames).total == pytest.approx(torch_count, rel=0.02)


def test_a_vocoder_call_is_what_torch_counts_of_the_reference():
    from cosyvoice_cpu.networks.reference.vocoder import Vocoder

    config, frames = TINY.vocoder, 60
    vocoder = Vocoder(config)
    mel = torch.zeros(1, config.in_channels, frames)
    source = torch.zeros(1, 1, frames * config.samples_per_frame)
    torch_count = counted(vocoder, mel, source)
    torch_count += counted(vocoder.f0_predictor, mel)
    assert vocoder_flops(config, frames) == pytest.approx(torch_count, rel=0.05)
