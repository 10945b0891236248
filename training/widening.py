"""A trained vocoder made wider: more channels, the same waveform.

A generator that has stopped learning goes on with more room from where it is. Old channels read
nothing of new ones at first, so the waveform stays; new channels read old ones and each other. Half
of what a new channel reads is an old channel's own filter and half is chance, so that it carries
something of use and yet something else. The weights from new to old channels are zero, which their
gradients are not.
Source: Net2Net, arXiv 1511.05641, which halves the outgoing weights of two equal channels instead.
Adam moves equal channels alike, and these differ from the start.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from training.weight_norm import without_weight_norm


def widened(vocoder: Vocoder, base_channels: int, seed: int = 0) -> Vocoder:
    """A vocoder of `base_channels` with the function of `vocoder`, both without weight norm.

    f0 predictor and excitation are copied. Raises ValueError for a smaller width.
    """
    if base_channels < vocoder.config.base_channels:
        raise ValueError(f"{base_channels} channels are fewer than {vocoder.config.base_channels}")
    config = dataclasses.replace(vocoder.config, base_channels=base_channels)
    wide = without_weight_norm(Vocoder(config))
    generator = torch.Generator().manual_seed(seed)
    narrow = vocoder.state_dict()
    wide.load_state_dict(
        {
            name: _widened(narrow[name], value.shape, generator)
            for name, value in wide.state_dict().items()
        }
    )
    return wide


def _widened(old: Tensor, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """`old`, a vector [out] or a filter bank [out, in, taps], in the corner of a larger `shape`."""
    if old.shape == shape:
        return old.clone()
    rows = shape[0] - len(old)
    inherited = old[torch.randint(len(old), (rows,), generator=generator)]
    if old.dim() == 1:
        return torch.cat([old, inherited])
    columns = shape[1] - old.shape[1]
    chance = torch.randn(rows, *shape[1:], generator=generator) * old.std()
    chance[:, : old.shape[1]] += inherited
    unread = old.new_zeros(len(old), columns, *shape[2:])
    return torch.cat([torch.cat([old, unread], 1), chance * math.sqrt(0.5)])
