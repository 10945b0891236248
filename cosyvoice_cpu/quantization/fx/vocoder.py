"""The vocoder's generator as torch's FX can trace it: an experiment, to see what INT8 does to it.

STFT and inverse STFT are opaque. The f0 predictor (float64) and the excitation are left alone: an
f0 error adds up over the utterance. Source: as `networks.vocoder`, upsampling as in the bundle.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.quantization.fx.layers import GraphFacts, StoredLayers, look_back

_FINAL_SLOPE = 0.01
_MAGNITUDE_LIMIT = 100.0


class Spectrum(nn.Module):
    """Centred STFT [1, samples] to [1, bins, frames], real rows before imaginary ones."""

    def __init__(self, size: int, hop: int) -> None:
        super().__init__()
        self.size, self.hop = size, hop

    def forward(self, source: Tensor) -> Tensor:
        window = torch.hann_window(self.size)
        spectrum = torch.stft(
            source, self.size, self.hop, window=window, pad_mode="reflect", return_complex=True
        )
        return torch.cat([spectrum.real, spectrum.imag], dim=1)


class Waveform(nn.Module):
    """Log-magnitude and phase code [1, bins, frames] to samples [1, hop (frames - 1)]."""

    def __init__(self, size: int, hop: int) -> None:
        super().__init__()
        self.size, self.hop = size, hop

    def forward(self, x: Tensor) -> Tensor:
        log_magnitude, phase = x.chunk(2, dim=1)
        magnitude, angle = log_magnitude.exp().clamp(max=_MAGNITUDE_LIMIT), phase.sin()
        spectrum = torch.complex(magnitude * angle.cos(), magnitude * angle.sin())
        return torch.istft(spectrum, self.size, self.hop, window=torch.hann_window(self.size))


class Snake(nn.Module):
    """x + sin^2(a x) / a; [1, C, T]."""

    alpha: Tensor
    inverse: Tensor

    def __init__(self, stored: StoredLayers, name: str) -> None:
        super().__init__()
        self.register_buffer("alpha", stored.tensor(f"{name}.alpha"))
        self.register_buffer("inverse", stored.tensor(f"{name}.inverse"))

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(x * self.alpha) ** 2 * self.inverse


class ResBlock(nn.Module):
    """For each dilation: Snake, dilated convolution, Snake, convolution, residual; [1, C, T]."""

    def __init__(self, stored: StoredLayers, name: str, facts: GraphFacts) -> None:
        super().__init__()
        places = range(stored.count(f"{name}.convs1.{{}}.weight"))

        def convolutions(part: str) -> nn.ModuleList:
            return nn.ModuleList(stored.convolution(f"{name}.{part}.{j}", facts) for j in places)

        self.convs1, self.convs2 = convolutions("convs1"), convolutions("convs2")
        self.activations1 = nn.ModuleList(Snake(stored, f"{name}.activations1.{j}") for j in places)
        self.activations2 = nn.ModuleList(Snake(stored, f"{name}.activations2.{j}") for j in places)

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for snake1, conv1, snake2, conv2 in layers:
            x = x + look_back(conv2, snake2(look_back(conv1, snake1(x))))
        return x


class TraceableVocoder(nn.Module):
    """Log-mel [1, 80, T + look-ahead] and source [1, T samples] to a waveform [1, T samples]."""

    opaque: ClassVar[tuple[type[nn.Module], ...]] = (Spectrum, Waveform)

    def __init__(self, stored: StoredLayers, facts: GraphFacts) -> None:
        super().__init__()
        shapes = {name: weight.shape for name, weight in stored.weights.items()}
        stages = stored.count("ups.{}.weight")
        bins = shapes["conv_post.weight"][0]
        # An upsampling convolution has one output for each phase of each channel.
        self.rates = [
            shapes[f"ups.{i}.weight"][0] // shapes[f"source_downs.{i}.weight"][0]
            for i in range(stages)
        ]
        size, hop = bins - 2, facts.attribute("ConvTranspose", "strides")[0]
        self.spectrum, self.waveform = Spectrum(size, hop), Waveform(size, hop)
        self.slope = facts.attribute("LeakyRelu", "alpha")
        self.limit = facts.constant("Clip", 2)
        self.conv_pre = stored.convolution("conv_pre", facts)
        self.conv_post = stored.convolution("conv_post", facts)
        self.ups = nn.ModuleList(stored.convolution(f"ups.{i}", facts) for i in range(stages))
        self.source_downs = nn.ModuleList(
            stored.convolution(f"source_downs.{i}", facts) for i in range(stages)
        )
        self.source_resblocks = nn.ModuleList(
            ResBlock(stored, f"source_resblocks.{i}", facts) for i in range(stages)
        )
        self.resblocks = nn.ModuleList(
            ResBlock(stored, f"resblocks.{i}", facts)
            for i in range(stored.count("resblocks.{}.convs1.0.weight"))
        )
        self.samples_per_frame = hop * math.prod(self.rates)

    def forward(self, mel: Tensor, source: Tensor) -> Tensor:
        spectrum = self.spectrum(source)
        x = self.conv_pre(mel)
        count = len(self.resblocks) // len(self.ups)
        for stage, rate in enumerate(self.rates):
            x = look_back(self.ups[stage], F.leaky_relu(x, self.slope))  # [1, C rate, T]
            x = torch.unflatten(x, 1, (-1, rate)).transpose(2, 3).flatten(2)  # [1, C, T rate]
            if stage == len(self.rates) - 1:
                x = F.pad(x, (1, 0), mode="reflect")  # a centred STFT has one frame more
            down = look_back(self.source_downs[stage], spectrum)
            x = x + self.source_resblocks[stage](down)
            blocks = [self.resblocks[stage * count + j](x) for j in range(count)]
            x = sum(blocks) / count
        x = look_back(self.conv_post, F.leaky_relu(x, _FINAL_SLOPE))
        waveform: Tensor = self.waveform(x).clamp(-self.limit, self.limit)
        return waveform
