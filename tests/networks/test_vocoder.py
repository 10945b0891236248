"""Vocoder, excitation and f0 predictor: look-ahead, precision, weight norm, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.networks_golden import ARRAYS, CHECKPOINT, relative_error, stages

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.networks.reference.excitation import Excitation
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from cosyvoice_cpu.networks.reference.weights import load_networks

MEL = ARRAYS["voc_mel"][0]  # [80, 36]
DILATIONS = ((1, 3, 5),) * 3
CONFIG = VocoderConfig(
    in_channels=80,
    base_channels=32,
    nb_harmonics=8,
    sampling_rate=24000,
    nsf_alpha=0.1,
    nsf_sigma=0.003,
    nsf_voiced_threshold=10,
    upsample_rates=(8, 5, 3),
    upsample_kernel_sizes=(16, 11, 7),
    istft_n_fft=16,
    istft_hop_len=4,
    resblock_kernel_sizes=(3, 7, 11),
    resblock_dilation_sizes=DILATIONS,
    source_resblock_kernel_sizes=(7, 7, 11),
    source_resblock_dilation_sizes=DILATIONS,
    lrelu_slope=0.1,
    audio_limit=0.99,
    conv_pre_look_right=4,
    f0_channels=16,
)


@pytest.mark.parametrize("frames", [9, 10, 23, 36])
def test_an_open_waveform_is_the_beginning_of_a_finalized_one(frames: int) -> None:
    whole = stages().mel_to_waveform(MEL)
    opened = stages().mel_to_waveform(MEL[:, :frames], finalize=False)
    assert opened.shape == ((frames - 8) * 480,)
    assert relative_error(opened, whole[: len(opened)]) <= 1e-4


@pytest.mark.parametrize("finalize, frames", [(True, 0), (False, 8)])
def test_a_mel_that_is_too_short_is_refused(finalize: bool, frames: int) -> None:
    with pytest.raises(SynthesisError, match=f"a mel of {frames} frames is too short"):
        stages().mel_to_waveform(MEL[:, :frames], finalize=finalize)


def test_one_frame_makes_480_samples() -> None:
    assert stages().mel_to_waveform(MEL[:, :1]).shape == (480,)


def test_a_source_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        stages().mel_to_waveform(MEL, source=np.zeros((1, 481), np.float32))


def test_the_loaded_f0_predictor_is_float64_and_runs_in_float32_too() -> None:
    vocoder = load_networks(open_checkpoint(CHECKPOINT, front_end=False), "vocoder")["vocoder"]
    assert {p.dtype for p in vocoder.f0_predictor.parameters()} == {torch.float64}
    with torch.inference_mode():
        single = vocoder.f0_predictor.float()(torch.tensor(MEL)[None])
    assert single.dtype == torch.float32
    assert relative_error(single.numpy(), ARRAYS["voc_f0_final_f64"]) <= 1e-5


@torch.inference_mode()
def test_the_excitation_is_a_staircase_plus_noise() -> None:
    excitation, f0 = Excitation(CONFIG), torch.tensor([[0.0, 120.0, 123.0, 5.0]])
    source = excitation(f0, torch.zeros(4 * 480, 9))
    assert source.shape == (1, 1, 4 * 480)
    steps = source.view(4, 480)
    assert torch.equal(steps, steps[:, :1].expand(4, 480))
    silent = torch.tanh(excitation.l_linear.bias)
    assert torch.equal(steps[[0, 3], 0], silent.expand(2))  # below the voicing threshold
    noisy = excitation(f0, torch.rand(4 * 480, 9)).view(4, 480)
    assert (noisy.std(dim=1)[[0, 3]] > noisy.std(dim=1)[[1, 2]]).all()


@given(st.lists(st.floats(0, 500, width=32), min_size=1, max_size=400))
def test_the_phase_is_summed_in_double_precision(track: list[float]) -> None:
    f0 = np.array(track, np.float32)
    phase = Excitation(CONFIG).phase(torch.tensor(f0)[None])[0].numpy()
    turns = f0[:, None] * np.arange(1, 10, dtype=np.float32) / np.float32(24000)
    exact = np.cumsum(turns.astype(np.float64) % 1, axis=0) * 2 * math.pi * 480
    assert np.abs(phase - exact).max() <= 4e-7 * max(exact.max(), 1)


def test_every_parameter_of_the_vocoder_gets_a_gradient() -> None:
    torch.manual_seed(1)
    vocoder, mel = Vocoder(CONFIG), torch.randn(2, 80, 12)
    f0 = vocoder.f0_predictor(mel).float() + 100
    source = vocoder.m_source(f0, torch.rand(2, 12 * 480, 9))
    waveform = vocoder(mel, source)
    assert waveform.shape == (2, 12 * 480)
    waveform.square().sum().backward()
    silent = [n for n, p in vocoder.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


def test_an_open_batch_has_five_frames_fewer_than_its_source() -> None:
    vocoder = Vocoder(CONFIG)
    waveform = vocoder(torch.randn(2, 80, 9), torch.randn(2, 1, 9 * 480), finalize=False)
    assert waveform.shape == (2, 4 * 480)


def test_a_channels_weight_has_the_norm_g_in_the_precision_of_the_network() -> None:
    torch.manual_seed(1)
    predictor = Vocoder(CONFIG).f0_predictor
    for dtype, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-14)):
        conv = predictor.to(dtype).condnet[0]
        stored = conv.get_submodule("parametrizations.weight")
        g = torch.rand(16, 1, 1, dtype=torch.float64) + 0.1
        with torch.no_grad():
            stored.original0.copy_(g)
            norm = conv.weight.double().norm(dim=(1, 2))
        expected = stored.original0.double().flatten()
        torch.testing.assert_close(norm, expected, rtol=tolerance, atol=0)
