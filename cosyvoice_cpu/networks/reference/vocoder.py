"""Vocoder: causal HiFT, log-mel (50 Hz) and excitation source to a 24 kHz waveform.

Three upsampling stages lead from mel frames to spectrogram frames (6 kHz); each adds the source's
spectrum and averages residual blocks. The network predicts a spectrum of 16 samples, hop 4, and
the inverse STFT makes the waveform. All convolutions look back, except two: `conv_pre` (4 frames
ahead) and the first of the f0 predictor (3).
Source: CosyVoice cosyvoice/hifigan/generator.py, CausalHiFTGenerator (arXiv 2309.09493).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.networks.reference.convolutions import CausalConv, CausalDownsample
from cosyvoice_cpu.networks.reference.excitation import Excitation
from cosyvoice_cpu.networks.reference.f0_predictor import F0Predictor

FINAL_SLOPE = 0.01  # of the leaky ReLU before conv_post: torch's default, not the YAML's 0.1
MAGNITUDE_LIMIT = 100.0
SNAKE_EPS = 1e-9
POST_KERNEL = 7


class Snake(nn.Module):
    """x + sin^2(a x) / a with a learned a per channel; [B, C, T] (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha = self.alpha[:, None]
        return x + torch.sin(x * alpha) ** 2 / (alpha + SNAKE_EPS)


class ResBlock(nn.Module):
    """For each dilation: Snake, dilated convolution, Snake, convolution, residual; [B, C, T]."""

    def __init__(self, channels: int, kernel: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        self.convs1 = nn.ModuleList(
            weight_norm(CausalConv(channels, channels, kernel, dilation=dilation))
            for dilation in dilations
        )
        self.convs2 = nn.ModuleList(
            weight_norm(CausalConv(channels, channels, kernel)) for _ in dilations
        )
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        layers = zip(self.activations1, self.convs1, self.activations2, self.convs2, strict=True)
        for snake1, conv1, snake2, conv2 in layers:
            x = x + conv2(snake2(conv1(snake1(x))))
        return x


class Vocoder(nn.Module):
    """The generator as `forward`; its f0 predictor and excitation as attributes.

    T mel frames; a frame has 480 samples and 120 spectrogram frames.
    """

    window: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.f0_predictor = F0Predictor(config)
        self.m_source = Excitation(config)
        bins = config.istft_n_fft + 2  # real and imaginary part, or magnitude and phase
        widths = [config.base_channels >> n for n in range(len(config.upsample_rates) + 1)]
        rates, kernels = config.upsample_rates, config.upsample_kernel_sizes
        self.conv_pre = weight_norm(
            nn.Conv1d(config.in_channels, widths[0], config.conv_pre_look_right + 1)
        )
        self.ups = nn.ModuleList(
            weight_norm(CausalConv(wide, narrow, kernel))
            for wide, narrow, kernel in zip(widths, widths[1:], kernels, strict=False)
        )
        # Stage i still has to be upsampled by `strides[i]`; the source's spectrum comes down to it.
        strides = [math.prod(rates[stage + 1 :]) for stage in range(len(rates))]
        self.source_downs = nn.ModuleList(
            CausalDownsample(bins, width, stride) if stride > 1 else CausalConv(bins, width, 1)
            for width, stride in zip(widths[1:], strides, strict=True)
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
        self.resblocks_per_stage = len(shapes)
        self.resblocks = nn.ModuleList(
            ResBlock(width, kernel, dilations)
            for width in widths[1:]
            for kernel, dilations in shapes
        )
        self.conv_post = weight_norm(CausalConv(widths[-1], bins, kernel_size=POST_KERNEL))
        window = torch.hann_window(config.istft_n_fft, periodic=True, device="cpu")
        self.register_buffer("window", window, persistent=False)

    def forward(self, mel: Tensor, source: Tensor, *, finalize: bool = True) -> Tensor:
        """Waveform [B, T * 480] in -0.99..0.99 from log-mel [B, 80, T], source [B, 1, T * 480].

        Without `finalize` the last frames are context only: [B, (T - 5) * 480], which equals the
        beginning of a longer, finalized run.
        """
        config = self.config
        ahead = config.conv_pre_look_right
        spectrum = self._spectrum(source)  # [B, 18, T * 120 + 1]
        if finalize:
            mel = F.pad(mel, (0, ahead))
        else:
            per_frame = config.samples_per_frame // config.istft_hop_len
            spectrum = spectrum[:, :, : -ahead * per_frame]
        x = self._upsample(self.conv_pre(mel), spectrum)
        x = self.conv_post(F.leaky_relu(x, FINAL_SLOPE))
        waveform = self._waveform(x)
        if not finalize:
            # The last frame of the overlap-add still lacks what would follow.
            waveform = waveform[:, : -config.samples_per_frame]
        return waveform.clamp(-config.audio_limit, config.audio_limit)

    def _upsample(self, x: Tensor, spectrum: Tensor) -> Tensor:
        """Mel frames [B, C, T] to spectrogram frames [B, C / 8, T * 120 + 1]."""
        last = len(self.ups) - 1
        for stage, (up, rate) in enumerate(zip(self.ups, self.config.upsample_rates, strict=True)):
            x = F.leaky_relu(x, self.config.lrelu_slope)
            x = up(x.repeat_interleave(rate, dim=2))
            if stage == last:
                x = F.pad(x, (1, 0), mode="reflect")  # a centred STFT has one frame more
            x = x + self.source_resblocks[stage](self.source_downs[stage](spectrum))
            first = stage * self.resblocks_per_stage
            blocks = self.resblocks[first : first + self.resblocks_per_stage]
            x = sum(block(x) for block in blocks) / len(blocks)
        return x

    def _spectrum(self, source: Tensor) -> Tensor:
        """Centred STFT of [B, 1, samples]: [B, 18, samples / 4 + 1], real then imaginary part."""
        spectrum = torch.stft(
            source.squeeze(1),
            self.config.istft_n_fft,
            self.config.istft_hop_len,
            window=self.window,
            pad_mode="reflect",
            return_complex=True,
        )
        return torch.cat([spectrum.real, spectrum.imag], dim=1)

    def _waveform(self, x: Tensor) -> Tensor:
        """Inverse STFT of log-magnitude and phase code [B, 18, frames]: [B, 4 (frames - 1)]."""
        log_magnitude, phase = x.chunk(2, dim=1)
        magnitude = log_magnitude.exp().clamp(max=MAGNITUDE_LIMIT)
        angle = phase.sin()  # the network codes the phase as asin(angle): -1..1 rad, as trained
        spectrum = torch.complex(magnitude * angle.cos(), magnitude * angle.sin())
        return torch.istft(
            spectrum, self.config.istft_n_fft, self.config.istft_hop_len, window=self.window
        )
