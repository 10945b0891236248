"""The vocoder is trained on plain weights, and written with the official files' weight norm.

Averaging the weights over the steps is meant for the weights themselves; magnitudes and directions
averaged apart would give others.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from cosyvoice_cpu.networks.reference.vocoder import Vocoder

Network = TypeVar("Network", bound=nn.Module)


def without_weight_norm(network: Network) -> Network:
    """`network` itself, its normalized layers now with a plain `weight`."""
    for module in list(network.modules()):
        if is_parametrized(module, "weight"):
            remove_parametrizations(module, "weight")
    return network


def with_weight_norm(vocoder: Vocoder) -> Vocoder:
    """`vocoder` itself, the layers normalized again that `Vocoder` normalizes."""
    with torch.device("meta"):
        pattern: nn.Module = Vocoder(vocoder.config)
    for name, module in pattern.named_modules():
        if is_parametrized(module, "weight"):
            weight_norm(vocoder.get_submodule(name))
    return vocoder
