"""The excitation as it runs; its noise is an input, so that it has no randomness of its own.

The phase is summed in float64, rounded to float32 and scaled in the original's order.
Source: as the reference.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import excitation as reference


class Excitation(nn.Module):
    """f0 and noise to the source signal. T mel frames."""

    leaves: ClassVar[tuple[type[nn.Module], ...]] = ()
    order: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.harmonics = config.nb_harmonics + 1
        self.source = nn.Linear(self.harmonics, 1)
        order = torch.arange(1, self.harmonics + 1, dtype=torch.float32, device="cpu")
        self.register_buffer("order", order, persistent=False)

    def forward(self, f0: Tensor, noise: Tensor) -> Tensor:
        """Source [1, T * 480] in -1..1 from f0 [T] in Hz and noise [T * 480, harmonics]."""
        config = self.config
        column = f0.unsqueeze(1)  # [T, 1]
        turns = torch.fmod(column * self.order / config.sampling_rate, 1.0)  # per sample
        phase = turns.double().cumsum(dim=0).float() * 2 * math.pi * config.samples_per_frame
        sine = phase.double().sin().float() * config.nsf_alpha  # [T, harmonics]
        voiced = column > config.nsf_voiced_threshold
        sine = torch.where(voiced, sine, 0.0)
        level = torch.where(voiced, config.nsf_sigma, config.nsf_alpha / 3)  # of the noise
        noise = noise.view(-1, config.samples_per_frame, self.harmonics)  # [T, 480, harmonics]
        signal = sine.unsqueeze(1) + level.unsqueeze(1) * noise
        merged: Tensor = self.source(signal.flatten(0, 1))  # [T * 480, 1]
        return merged.tanh().view(1, -1)

    @classmethod
    def from_reference(cls, network: reference.Excitation) -> Excitation:
        """On the tensors of `network`."""
        with torch.device("meta"):
            own = cls(network.config)
        own.load_state_dict(layer_tensors("source", network.merge), assign=True)
        return own.eval()
