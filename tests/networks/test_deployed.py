"""The form that runs equals the reference: all components, full and chunked, padded or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from support.bundle_examples import SYNTHESIS
from support.networks_golden import stages
from torch import Tensor, fx, nn

from cosyvoice_cpu.networks.deployed.flow_encoder import FlowEncoder
from cosyvoice_cpu.networks.deployed.flow_estimator import FlowEstimator
from cosyvoice_cpu.networks.deployed.speech_lm import SpeechLM
from cosyvoice_cpu.networks.deployed.storage import (
    config_metadata,
    load_stored,
    stored_config,
    stored_tensors,
)
from cosyvoice_cpu.networks.deployed.vocoder import Vocoder
from cosyvoice_cpu.networks.reference.speech_lm import KVCache

TIMES = np.array(SYNTHESIS.solver_times, np.float32)
POSITIONS = 300  # mel frames
PADDING = 7  # frames
TOLERANCE, VELOCITY = 2e-5, 2e-6


def error(got: Tensor, want: Tensor) -> float:
    assert got.shape == want.shape
    assert torch.isfinite(got).all()
    return float((got - want).abs().max() / want.abs().max())


def random(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def estimator() -> FlowEstimator:
    return FlowEstimator.from_reference(stages().flow_estimator, TIMES, POSITIONS)


@pytest.mark.parametrize("padding", [0, PADDING])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("frames", [1, 50, 117])
@torch.no_grad()
def test_velocity_is_the_references(frames: int, chunked: bool, padding: int) -> None:
    mels = [random(2, 80, frames) + place for place in range(3)]
    x, mu, cond = mels
    speaker, step = random(2, 80), frames % 10
    want = stages().flow_estimator(
        *(x, torch.ones(2, 1, frames), mu, torch.full((2,), TIMES[step].item()), speaker, cond),
        streaming=chunked,
    )
    # Padding of large numbers: what it holds must not matter.
    padded = [F.pad(mel, (0, padding), value=9.0) for mel in mels]
    network = estimator().graph("chunked" if chunked else "full")
    got = network(*padded, speaker, torch.tensor(step), torch.tensor([frames]))
    assert error(got[:, :, :frames], want) <= VELOCITY


@pytest.mark.parametrize("finalize", [False, True])
@torch.no_grad()
def test_mu_and_speaker_are_the_references(finalize: bool) -> None:
    reference = stages().flow_encoder
    tokens, embedding = torch.arange(30), random(1, 192)
    known = torch.ones(30)
    ahead = reference.config.pre_lookahead_len if finalize else 0
    network = FlowEncoder.from_reference(reference)
    mu, speaker = network(F.pad(tokens, (0, ahead)), F.pad(known, (0, ahead)), embedding)
    assert error(mu, reference(tokens[None], finalize=finalize)[0]) <= TOLERANCE
    assert error(speaker, reference.speaker(embedding)) <= TOLERANCE


@pytest.mark.parametrize("padding", [0, PADDING])
@pytest.mark.parametrize("finalize", [False, True])
@pytest.mark.parametrize("frames", [6, 64])
@torch.no_grad()
def test_waveform_is_the_references(frames: int, finalize: bool, padding: int) -> None:
    reference = stages().vocoder
    config = reference.config
    samples, ahead = config.samples_per_frame, config.conv_pre_look_right
    mel, source = random(1, 80, frames) * 2 - 6, random(1, 1, frames * samples).tanh()
    want = reference(mel, source, finalize=finalize)
    valid = frames if finalize else frames - ahead
    got = Vocoder.from_reference(reference)(
        F.pad(mel, (0, padding + (ahead if finalize else 0))),
        F.pad(source[0, :, : valid * samples], (0, padding * samples)),
        torch.tensor([valid]),
    )
    assert error(got[:, : want.shape[1]], want) <= TOLERANCE


@torch.no_grad()
def test_f0_and_source_are_the_references() -> None:
    reference = stages().vocoder
    mel = random(80, 40) * 2 - 6
    want = reference.f0_predictor(mel[None]).float()
    vocoder = Vocoder.from_reference(reference)
    network = vocoder.graph("f0_predictor")
    assert error(network(F.pad(mel, (0, 3))), want[0]) <= 1e-6
    opened = reference.f0_predictor(mel[None], finalize=False).float()
    assert error(network(mel), opened[0]) <= 1e-6
    f0, noise = want[0] * 100, torch.rand(40 * reference.config.samples_per_frame, 9)
    excitation, none = vocoder.graph("excitation"), torch.zeros(1, 9, dtype=torch.float64)
    got, turns = excitation(f0, noise, none)
    assert error(got, reference.m_source(f0[None], noise)[0]) <= TOLERANCE
    samples = 13 * reference.config.samples_per_frame
    first, carried = excitation(f0[:13], noise[:samples], none)
    second, end = excitation(f0[13:], noise[samples:], carried)
    assert torch.equal(torch.cat([first, second], dim=1), got)
    assert torch.equal(end, turns)


@torch.no_grad()
def test_logits_are_the_references_in_one_call_and_token_by_token() -> None:
    reference = stages().speech_lm
    config = reference.config
    network = SpeechLM.from_reference(reference)
    rows = reference.speech_embedding.weight[torch.arange(28) * 7][None]
    want = reference.logits(reference(rows, KVCache(config)))[0]
    shape = (1, config.num_kv_heads, 32, config.head_dim)
    # What was never written must not be read.
    past = [torch.full(shape, float("nan")) for _ in range(2 * config.num_layers)]

    def run(start: int, end: int) -> Tensor:
        last, total = torch.tensor([end - 1]), torch.tensor([end])
        logits, *present = network(
            rows[:, start:end], torch.arange(end - start), last, total, *past
        )
        assert all(a is b for a, b in zip(past, present, strict=True))
        return logits

    got = torch.cat([run(0, 24), *(run(i, i + 1) for i in range(24, 28))])
    assert error(got, want) <= TOLERANCE


def test_networks_are_what_their_stored_tensors_make_of_them(tmp_path: object) -> None:
    reference = stages()
    networks: list[Any] = [
        estimator(),
        FlowEncoder.from_reference(reference.flow_encoder),
        Vocoder.from_reference(reference.vocoder),
        SpeechLM.from_reference(reference.speech_lm),
    ]
    for network in networks:
        path = f"{tmp_path}/{type(network).__name__}"
        stored = {name: tensor.contiguous() for name, tensor in stored_tensors(network).items()}
        save_file(stored, path, config_metadata(network.config))
        config = stored_config(Path(path), network.config_type)
        assert config == network.config
        other = type(network).blank(config, stored)
        load_stored(other, load_file(path))
        before = network.state_dict()
        assert all(torch.equal(before[name], t) for name, t in other.state_dict().items())
    blocks = stored_tensors(networks[0])
    assert blocks["blocks.0.qkv.weight"].shape == (128, 384)  # [in, out]


class _Tracer(fx.Tracer):
    def __init__(self, leaves: tuple[type[nn.Module], ...]) -> None:
        super().__init__()
        self.leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self.leaves) or super().is_leaf_module(m, module_qualified_name)


@torch.no_grad()
def test_fx_traces_each_network_that_can_be_quantized() -> None:
    reference = stages()
    lm = reference.speech_lm.config
    buffer = torch.zeros(1, lm.num_kv_heads, 8, lm.head_dim)
    mel = random(2, 80, 20)
    feeds: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
        (estimator(), (mel, mel, mel, mel[:, :, 0], torch.tensor(1), torch.tensor([17]))),
        (
            FlowEncoder.from_reference(reference.flow_encoder),
            (torch.arange(9), torch.ones(9), random(1, 192)),
        ),
        (
            Vocoder.from_reference(reference.vocoder),
            (random(1, 80, 12), random(1, 8 * 480), torch.tensor([7])),
        ),
        (
            SpeechLM.from_reference(reference.speech_lm),
            (
                *(random(1, 5, lm.hidden_size), torch.arange(5)),
                *(torch.tensor([4]), torch.tensor([5]), *[buffer] * (2 * lm.num_layers)),
            ),
        ),
    ]
    for network, feed in feeds:
        traced = fx.GraphModule(network, _Tracer(network.leaves).trace(network))
        got, want = traced(*feed), network(*feed)
        pairs = zip(got, want, strict=True) if isinstance(want, tuple) else [(got, want)]
        assert all(torch.equal(a, b) for a, b in pairs), type(network).__name__
