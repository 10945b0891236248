"""The excitation as it runs; noise and phase are inputs, so that it has neither randomness nor
memory of its own.

The phase is summed in float64, rounded to float32 and scaled in the original's order, so that
pieces of an utterance sum up to the same as the whole.
Source: as the reference.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig


class Excitation(nn.Linear):
    """The linear layer that merges the harmonics, and before it what makes them. T mel frames."""

    order: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        harmonics = config.nb_harmonics + 1
        super().__init__(harmonics, 1)
        self.config = config
        order = torch.arange(1, harmonics + 1, dtype=torch.float32, device="cpu")
        self.register_buffer("order", order, persistent=False)

    def forward(  # type: ignore[override]
        self, f0: Tensor, noise: Tensor, turns: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Source [1, T * 480] in -1..1 from f0 [T] in Hz and noise [T * 480, harmonics].

        `turns` float64 [1, harmonics] are the sums of the frames before, in cycles per sample; the
        second output is what they are behind these frames.
        """
        config = self.config
        column = f0.unsqueeze(1)  # [T, 1]
        each = torch.fmod(column * self.order / config.sampling_rate, 1.0)  # per sample
        sums = torch.cat([turns, each.double()]).cumsum(dim=0)[1:]
        phase = sums.float() * 2 * math.pi * config.samples_per_frame
        sine = phase.double().sin().float() * config.nsf_alpha  # [T, harmonics]
        voiced = column > config.nsf_voiced_threshold
        sine = torch.where(voiced, sine, 0.0)
        level = torch.where(voiced, config.nsf_sigma, config.nsf_alpha / 3)  # of the noise
        noise = noise.view(-1, config.samples_per_frame, self.in_features)  # [T, 480, harmonics]
        signal = sine.unsqueeze(1) + level.unsqueeze(1) * noise
        merged: Tensor = super().forward(signal.flatten(0, 1))  # [T * 480, 1]
        return merged.tanh().view(1, -1), sums[-1:]
