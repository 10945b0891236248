"""The vocoder as it runs: the generator, from mel and excitation source to a waveform.

STFT and inverse STFT are convolutions. A convolution over a signal whose samples are repeated r
times needs only three distinct inputs for each output, so each upsampling convolution is stored as
r small ones (one per output phase): a fifth of the arithmetic, the same result but for rounding.
All of it looks back, so padding frames at the end change nothing before them; the two places that
look at the end (the reflected source, the last frame of the inverse STFT) read the number of valid
frames. Source: as the reference.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.networks.deployed.excitation import Excitation
from cosyvoice_cpu.networks.deployed.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.deployed.operators import Spectrum, Waveform
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import vocoder as reference

# a, b, c, h of sin^2(pi r) = h y ((y + b) y + c), y = (s + a) s, s = r^2, |r| <= 1/2, to 1.1e-6:
# minimax, by Gauss-Newton steps on Chebyshev points with Lawson's weights.
_SQUARED_SINE = (-1.8909988, 3.72790793, 2.55376706, -2.04371574)


class Snake(nn.Module):
    """x + sin^2(a x) / a; [1, C, T].

    The sine is a polynomial in how far a x / pi is from the nearest integer: OpenVINO 2026.4
    computes `Sin` one value at a time, which takes a third of the whole vocoder. For ONNX Runtime
    each operator is a pass over memory, so constants are arranged for few of them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.turns = nn.Parameter(torch.empty(channels, 1), requires_grad=False)  # a / pi
        self.height = nn.Parameter(torch.empty(channels, 1), requires_grad=False)  # h / a

    def forward(self, x: Tensor) -> Tensor:
        a, b, c, _ = _SQUARED_SINE
        turns = x * self.turns
        rest = turns - turns.round()
        square = rest * rest
        y = (square + a) * square
        return x + ((y + b) * y + c) * y * self.height

    @staticmethod
    def tensors_of(network: reference.Snake) -> dict[str, Tensor]:
        """Its tensors by name, from the reference's."""
        alpha = network.alpha.detach()[:, None]  # [C, 1]
        return {
            "turns": alpha / math.pi,
            "height": _SQUARED_SINE[3] / (alpha + reference.SNAKE_EPS),
        }


class ResBlock(nn.Module):
    """For each dilation: Snake, dilated convolution, Snake, convolution, residual; [1, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            nn.Conv1d(channels, channels, kernel, dilation=dilation) for dilation in dilations
        )
        self.convs2 = nn.ModuleList(nn.Conv1d(channels, channels, kernel) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.reaches = [((kernel - 1) * dilation, kernel - 1) for dilation in dilations]

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(
            *(self.activations1, self.convs1, self.activations2, self.convs2),
            self.reaches,
            strict=True,
        )
        for snake1, conv1, snake2, conv2, (reach1, reach2) in layers:
            y = conv1(F.pad(snake1(x), (reach1, 0)))
            x = x + conv2(F.pad(snake2(y), (reach2, 0)))
        return x


class Vocoder(nn.Module):
    """The generator as `forward`; f0 predictor and excitation as attributes.

    T mel frames; a frame has 480 samples.
    """

    config_type = VocoderConfig
    leaves: ClassVar[tuple[type[nn.Module], ...]] = (Spectrum, Waveform)
    tables: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.f0 = F0Predictor(config)
        self.source = Excitation(config)
        size, hop = config.istft_n_fft, config.istft_hop_len
        self.spectrum = Spectrum(size, hop, config.samples_per_frame)
        self.waveform = Waveform(
            size, hop, config.samples_per_frame, magnitude_limit=reference.MAGNITUDE_LIMIT
        )
        bins, rates = size + 2, config.upsample_rates
        widths = [config.base_channels >> n for n in range(len(rates) + 1)]
        self.conv_pre = nn.Conv1d(config.in_channels, widths[0], config.conv_pre_look_right + 1)
        self.taps = [
            phase_taps(kernel, rate)
            for kernel, rate in zip(config.upsample_kernel_sizes, rates, strict=True)
        ]
        self.ups = nn.ModuleList(
            nn.Conv1d(wide, narrow * rate, taps)
            for wide, narrow, rate, taps in zip(widths, widths[1:], rates, self.taps, strict=False)
        )
        # Stage i still has to be upsampled by `strides[i]`; the source's spectrum comes down to it.
        self.strides = [math.prod(rates[stage + 1 :]) for stage in range(len(rates))]
        self.source_downs = nn.ModuleList(
            nn.Conv1d(bins, width, 2 * stride if stride > 1 else 1, stride=stride)
            for width, stride in zip(widths[1:], self.strides, strict=True)
        )
        self.source_resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width, kernel, dilations in zip(
                widths[1:],
                config.source_resblock_kernel_sizes,
                config.source_resblock_dilation_sizes,
                strict=True,
            )
        )
        shapes = list(
            zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        )
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in shapes
        )
        self.conv_post = nn.Conv1d(widths[-1], bins, reference.POST_KERNEL)

    def forward(self, mel: Tensor, source: Tensor, valid_frames: Tensor) -> Tensor:
        """Waveform [1, T * 480] in -0.99..0.99, of which valid_frames * 480 have a meaning.

        mel [1, 80, T + 4], the last four frames context or zeros; source [1, T * 480];
        valid_frames int64 [1], T without padding.
        """
        config = self.config
        spectrum = self.spectrum(source, valid_frames)  # [1, 18, T * 120 + 1]
        x = self.conv_pre(mel)
        count = len(config.resblock_kernel_sizes)
        for stage, rate in enumerate(config.upsample_rates):
            x = F.leaky_relu(x, config.lrelu_slope)
            x = self.ups[stage](F.pad(x, (self.taps[stage] - 1, 0)))  # [1, C rate, T]
            width = config.base_channels >> (stage + 1)
            x = x.view(width, rate, -1).transpose(1, 2).reshape(1, width, -1)  # [1, C, T rate]
            if stage == len(config.upsample_rates) - 1:
                x = torch.cat([x[:, :, 1:2], x], dim=2)  # a centred STFT has one frame more
            down = self.source_downs[stage](F.pad(spectrum, (self.strides[stage] - 1, 0)))
            x = x + self.source_resblocks[stage](down)
            blocks = self.resblocks[stage * count : (stage + 1) * count]
            x = sum(block(x) for block in blocks) * (1 / count)
        x = F.leaky_relu(x, reference.FINAL_SLOPE)
        x = self.conv_post(F.pad(x, (reference.POST_KERNEL - 1, 0)))
        waveform: Tensor = self.waveform(x, valid_frames)
        return waveform.clamp(-config.audio_limit, config.audio_limit)

    def graph(self, variant: str) -> nn.Module:
        """The module of a graph: "generator", "f0_predictor" or "excitation"."""
        return {"generator": self, "f0_predictor": self.f0, "excitation": self.source}[variant]

    @classmethod
    def blank(cls, config: VocoderConfig, tensors: Mapping[str, Tensor]) -> Vocoder:
        """Without values, on the meta device."""
        with torch.device("meta"):
            return cls(config).eval()

    @classmethod
    def from_reference(cls, network: reference.Vocoder) -> Vocoder:
        """On the tensors of `network`."""
        f0 = F0Predictor.tensors_of(network.f0_predictor)
        tensors = {
            **{f"f0.{name}": tensor for name, tensor in f0.items()},
            **layer_tensors("source", network.m_source.l_linear),
            **layer_tensors("conv_pre", network.conv_pre),
            **layer_tensors("conv_post", network.conv_post),
        }
        for name in ("source_downs", "ups"):
            for i, conv in enumerate(getattr(network, name)):
                tensors |= layer_tensors(f"{name}.{i}", conv)
        for i, rate in enumerate(network.config.upsample_rates):
            weight, bias = f"ups.{i}.weight", f"ups.{i}.bias"
            tensors[weight] = phase_weights(tensors[weight], rate)
            tensors[bias] = tensors[bias].repeat_interleave(rate)
        for name in ("source_resblocks", "resblocks"):
            for i, block in enumerate(cast("Sequence[reference.ResBlock]", getattr(network, name))):
                for part in ("convs1", "convs2"):
                    for j, conv in enumerate(getattr(block, part)):
                        tensors |= layer_tensors(f"{name}.{i}.{part}.{j}", conv)
                for part in ("activations1", "activations2"):
                    for j, snake in enumerate(getattr(block, part)):
                        for key, tensor in Snake.tensors_of(snake).items():
                            tensors[f"{name}.{i}.{part}.{j}.{key}"] = tensor
        own = cls.blank(network.config, tensors)
        own.load_state_dict(tensors, assign=True)
        return own


def phase_taps(kernel: int, rate: int) -> int:
    """Distinct inputs under a kernel over a `rate` times repeated signal, whatever its phase."""
    return (kernel - 2) // rate + 2


def phase_weights(weight: Tensor, rate: int) -> Tensor:
    """A causal kernel [out, in, k] over a `rate` times repeated signal, as one per output phase.

    Returns [out * rate, in, taps]; row c * rate + p makes the samples rate * m + p of channel c.
    """
    out, inner, kernel = weight.shape
    taps = phase_taps(kernel, rate)
    phases = torch.zeros(out, rate, inner, taps, dtype=torch.float64)
    for phase in range(rate):
        for j in range(kernel):
            tap = (phase - (kernel - 1) + j) // rate  # 0 is the newest input
            phases[:, phase, :, taps - 1 + tap] += weight[:, :, j]
    return phases.reshape(out * rate, inner, taps).float()
