"""Random weights that keep a network's activations in the range that trained ones have.

A rule per kind of tensor: standard deviation `gain / sqrt(fan_in)` keeps a layer's output at `gain`
times its input; residual branches get less, so that depth does not add up. Each tensor has its own
random stream, seeded from the key's name: sizes and order of other tensors don't matter to it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import Tensor

from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.generations import Generation
from cosyvoice_cpu.networks.reference.weights import (
    empty_networks,
    expected_tensors,
    fill,
    official_tensors,
)

_STOP_SCORE = -150.0  # weight of the stop ids on the constant channel, which ends at 0.4 to 1


@dataclass(frozen=True)
class Rule:
    """Normal values of `mean` and `std`; with `by_fan_in` the `std` is a gain per layer."""

    pattern: str
    std: float
    mean: float = 0.0
    by_fan_in: bool = False


def _rules(*rows: tuple[str, float, float] | tuple[str, float]) -> tuple[Rule, ...]:
    """Rows of (pattern, gain) for weights and (pattern, std, mean) for everything else."""
    return tuple(
        Rule(row[0], row[1], by_fan_in=True) if len(row) == 2 else Rule(row[0], row[1], row[2])
        for row in rows
    )


# The first pattern that fits a key's whole name is taken.
_SPEECH_LM = _rules(
    (r".*(embed_tokens|speech_embedding)\.weight", 1.0, 0.0),
    (r".*norm\.weight", 0.1, 1.0),
    (r".*(o_proj|down_proj)\.weight", 0.4),
    (r"llm_decoder\.weight", 3.0),  # as peaked as trained logits: the best id near 0.1
    (r".*\.weight", 1.0),
    (r".*\.bias", 0.1, 0.0),
)
_FLOW = _rules(
    (r"input_embedding\.weight", 1.0, 0.0),
    (r"spk_embed_affine_layer\.weight", 1.0, 0.0),  # its input has length 1
    (r".*time_mlp\.\d\.weight", 1.4),
    (r".*input_embed\.proj\.weight", 0.7),  # the prompt's log-mel is far from zero
    (r".*(attn_norm|norm_out)\.linear\.weight", 0.5),
    (r".*proj_out\.weight", 0.8),
    (r".*\.weight", 1.0),
    (r".*\.bias", 0.1, 0.0),
)
_VOCODER = _rules(
    (r"m_source\.l_linear\.weight", 1.5, 0.0),
    (r"(conv_pre|f0_predictor\.condnet\.0)\.parametrizations\.weight\.original0", 0.03, 0.3),
    (r"conv_post\.parametrizations\.weight\.original0", 0.05, 0.5),
    (r"(ups|f0_predictor\.condnet)\.\d\.parametrizations\.weight\.original0", 0.1, 1.3),
    (r".*convs2\.\d\.parametrizations\.weight\.original0", 0.04, 0.4),  # residual branch
    (r".*\.original0", 0.1, 1.0),
    (r".*\.alpha", 0.15, 1.0),
    (r"f0_predictor\.classifier\.bias", 0.0, 240.0),  # Hz
    (r"f0_predictor\.classifier\.weight", 40.0),  # Hz
    (r".*\.(weight|original1)", 1.0),
    (r".*\.bias", 0.05, 0.0),
)


def synthetic_tensors(
    part: str, config: CheckpointConfig, generation: Generation, seed: int
) -> dict[str, Tensor]:
    """The tensors of `llm.pt`, `flow.pt` or `hift.pt` as the official files name them, float32."""
    networks = empty_networks(config, generation, part)
    rules, adjust = _PARTS[part]
    tensors = {
        name: _tensor(f"{seed} {part} {name}", shape, _rule_for(name, rules))
        for name, shape in expected_tensors(networks).items()
    }
    adjust(tensors, config)
    fill(networks, tensors)
    return official_tensors(networks, generation)


def _adjust_speech_lm(tensors: dict[str, Tensor], config: CheckpointConfig) -> None:
    """Channel 0 of every position is the constant 1: all embeddings hold it and nothing adds to it,
    so it is positive after the last norm. On it the stop ids get a score that no sampler draws.
    """
    stop_first = config.speech_lm.speech_token_size
    for table in ("llm.model.model.embed_tokens.weight", "speech_embedding.weight"):
        tensors[table][:, 0] = 1.0
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor[0] = 0.0
    tensors["llm.model.model.norm.weight"][0] = 1.0
    tensors["llm_decoder.weight"][:stop_first, 0] = 0.0
    tensors["llm_decoder.weight"][stop_first:, 0] = _STOP_SCORE


def _adjust_flow(tensors: dict[str, Tensor], config: CheckpointConfig) -> None:
    """The velocity pulls towards a speech-like tilt of the log-mel."""
    tilt = torch.linspace(-3.0, -8.0, config.flow.output_size)
    tensors["decoder.estimator.proj_out.bias"] = tilt


def _adjust_vocoder(tensors: dict[str, Tensor], config: CheckpointConfig) -> None:
    """The last bias sets the loudness.

    The mean of a Hann-windowed frame is bin 0 minus the real part of bin 1, so the two bins share
    their weights: the waveform has no offset.
    """
    bins = config.vocoder.istft_n_fft // 2 + 1
    tensors["conv_post.bias"][:bins] -= 1.0
    for name, tensor in tensors.items():
        if name.startswith("conv_post."):
            tensor[0] = tensor[1]  # magnitude
            tensor[bins] = tensor[bins + 1]  # phase


_PARTS = {
    "speech_lm": (_SPEECH_LM, _adjust_speech_lm),
    "flow": (_FLOW, _adjust_flow),
    "vocoder": (_VOCODER, _adjust_vocoder),
}


def _rule_for(key: str, rules: tuple[Rule, ...]) -> Rule:
    return next(rule for rule in rules if re.fullmatch(rule.pattern, key))


def _tensor(stream: str, shape: tuple[int, ...], rule: Rule) -> Tensor:
    stream_seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:8], "little") >> 1
    generator = torch.Generator().manual_seed(stream_seed)
    std = rule.std / sqrt(prod(shape[1:])) if rule.by_fan_in else rule.std
    return torch.empty(shape).normal_(rule.mean, std, generator=generator)
