"""Harmonic excitation: f0 per frame to a source signal at the audio rate.

As in the original, the phase is interpolated with "nearest": each sine is constant within its
mel frame, a staircase at 50 Hz that the vocoder was trained on. The phase reaches 1e5 to 1e6 rad,
where one float32 step is 0.01 to 0.06 rad, so the order of operations is the original's.
Source: CosyVoice cosyvoice/hifigan/generator.py, SineGen2 and SourceModuleHnNSF (causal).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig


class Excitation(nn.Module):
    """Sines at the harmonics of f0, plus noise, merged to one channel. T mel frames."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.harmonics = config.nb_harmonics + 1
        self.l_linear = nn.Linear(self.harmonics, 1)

    def forward(self, f0: Tensor, noise: Tensor) -> Tensor:
        """Source [B, 1, T * 480] in -1..1, from f0 [B, T] in Hz (float32).

        `noise` [T * 480, harmonics] or [B, T * 480, harmonics]; at inference the fixed noise,
        uniform in [0, 1). It is scaled by 0.003 in voiced frames and by 0.1 / 3 elsewhere.
        """
        voiced = self.voiced(f0)
        sines, loudness = self.sines(f0), self.noise_level(voiced)[..., None]  # [B, T, ...]
        samples = self.config.samples_per_frame
        signal = sines.repeat_interleave(samples, dim=1)  # [B, T * 480, harmonics]
        signal = signal + loudness.repeat_interleave(samples, dim=1) * noise
        source: Tensor = torch.tanh(self.l_linear(signal))
        return source.transpose(1, 2)

    def voiced(self, f0: Tensor) -> Tensor:
        """1.0 where f0 [B, T] is above the voicing threshold (10 Hz), else 0.0."""
        return (f0 > self.config.nsf_voiced_threshold).to(f0.dtype)

    def noise_level(self, voiced: Tensor) -> Tensor:
        """Amplitude of the noise for each frame, [B, T]."""
        return voiced * self.config.nsf_sigma + (1 - voiced) * self.config.nsf_alpha / 3

    def phase(self, f0: Tensor) -> Tensor:
        """Phase [B, T, harmonics] in rad at each frame; unvoiced frames advance it too.

        torch's float32 `cumsum` on the CPU sums in float64 and rounds each value; a float32 sum
        is 1e-4 off after 36 frames.
        """
        order = torch.arange(1, self.harmonics + 1, device=f0.device, dtype=f0.dtype)
        turns = (f0[..., None] * order / self.config.sampling_rate) % 1  # per sample
        return turns.cumsum(dim=1) * 2 * math.pi * self.config.samples_per_frame

    def sines(self, f0: Tensor) -> Tensor:
        """The sine of each harmonic, [B, T, harmonics], zero where unvoiced."""
        return self.config.nsf_alpha * self.phase(f0).sin() * self.voiced(f0)[..., None]
