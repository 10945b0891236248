"""DistillMOS's network: compressed complex spectrum, convolutions, a transformer, pooling.

Modules are called as in the shipped state dict, so that it loads as it is.
Source: Stahl and Gamper, arXiv 2502.05356; packages `distillmos` (MIT), sqa.py, and `xls-r-sqa`
(MIT), sqa_model.py, transformer_wrapper.py and pool_att_ff.py.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.arrays import Floats

_SEGMENT = 122_880  # samples at 16 kHz: 7.68 s, 384 frames of 20 ms
_FRAMES = 384
_LARGEST_HOP = 16_000  # samples between the segments of a longer clip
_WINDOW, _HOP = 320, 160  # samples of the spectrum
_EXPONENT = 0.3  # of the magnitude
_LEAST = 1e-12
_CHANNELS = (2, 64, 64, 128, 256, 256, 256)
_FEATURES = 1024  # the last convolution's 256 channels at the 4 frequencies that are left
_WIDTH, _HEADS, _LAYERS = 200, 8, 7


class MosNetwork(nn.Module):
    """Segments [B, 122880] at 16 kHz to MOS [B], 1 to 5."""

    def __init__(self) -> None:
        super().__init__()
        self.cnn = _Spectrum()
        self.transformer_pool_attn = _Head()

    def forward(self, segments: Tensor) -> Tensor:
        peak = segments.abs().amax(dim=1, keepdim=True)
        features = self.cnn(segments / (peak + 1e-8))
        quality: Tensor = self.transformer_pool_attn(features)
        return 1 + 4 * quality

    @torch.inference_mode()
    def predict(self, wave16k: Floats) -> float:
        """MOS of a clip [n]: of its 7.68 s behind silence, or the mean over evenly laid segments,
        at most a second apart.
        """
        wave = torch.from_numpy(wave16k)
        over = max(0, len(wave) - _SEGMENT)
        wave = F.pad(wave, (0, _SEGMENT + over - len(wave)))
        count = 1 + -(-over // _LARGEST_HOP)
        starts = [int(place * over) for place in np.linspace(0, 1, count)]
        return float(self(torch.stack([wave[s : s + _SEGMENT] for s in starts])).mean())


def load_network(weights: Path) -> MosNetwork:
    """The network with the shipped `weights`, in evaluation mode. Raises: OSError."""
    network = MosNetwork()
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
    return network.eval()


class _Spectrum(nn.Module):
    """Complex spectrum with compressed magnitudes, six convolutions: [B, n] to [B, 384, 1024]."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        last = len(_CHANNELS) - 2
        for number, (narrow, wide) in enumerate(pairwise(_CHANNELS)):
            stride = (2 if number > 0 else 1, 2 if number == last else 1)  # frequency, time
            layers += [nn.Conv2d(narrow, wide, 3, stride, padding=(0, 1)), nn.LeakyReLU(0.1)]
        self.cnn = nn.Sequential(*layers)

    def forward(self, wave: Tensor) -> Tensor:
        side = (_WINDOW - _HOP) // 2
        spectrum = torch.stft(
            F.pad(wave, (side, side), mode="reflect"),
            _WINDOW,
            _HOP,
            window=torch.hann_window(_WINDOW, device=wave.device),
            center=False,
            return_complex=True,
        )
        parts = torch.view_as_real(spectrum)
        magnitude = parts.square().sum(-1, keepdim=True).sqrt().clamp(min=_LEAST)
        x = self.cnn((magnitude**_EXPONENT * parts / magnitude).permute(0, 3, 1, 2))
        features: Tensor = x.flatten(1, 2).transpose(1, 2)
        return features


class _Head(nn.Module):
    """Features [B, 384, 1024] to quality [B], 0 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_input = nn.BatchNorm1d(_FEATURES)
        self.transformer = _Transformer()
        self.norm_trans = nn.BatchNorm1d(_WIDTH)
        self.pool = _Pooling()

    def forward(self, features: Tensor) -> Tensor:
        x = self.transformer(_over_channels(self.norm_input, features))
        pooled: Tensor = self.pool(_over_channels(self.norm_trans, x))
        return pooled.sigmoid()


class _Transformer(nn.Module):
    """[B, 384, 1024] to [B, 384, 200]."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(_FEATURES)
        self.position_encoding = _Positions()
        self.linear_proj = nn.Linear(_FEATURES, _WIDTH)
        layer = nn.TransformerEncoderLayer(
            _WIDTH, _HEADS, dim_feedforward=2 * _WIDTH, dropout=0.0, batch_first=True
        )
        self.transformer_encoder = nn.TransformerEncoder(layer, _LAYERS)

    def forward(self, features: Tensor) -> Tensor:
        x = self.linear_proj(_over_channels(self.norm, features))
        encoded: Tensor = self.transformer_encoder(x + self.position_encoding.pe)
        return encoded


class _Positions(nn.Module):
    """The encoding of places, a table that comes with the weights."""

    pe: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pe", torch.zeros(1, _FRAMES, _WIDTH))


class _Pooling(nn.Module):
    """A mean over time by learned weights, then one value: [B, T, 200] to [B].

    Source: NISQA (MIT), nisqa/NISQA_lib.py, PoolAttFF.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(_WIDTH, 2 * _WIDTH)
        self.linear2 = nn.Linear(2 * _WIDTH, 1)
        self.linear3 = nn.Linear(_WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        share = self.linear2(self.linear1(x).relu()).softmax(dim=1)  # [B, T, 1]
        quality: Tensor = self.linear3((share * x).sum(dim=1)).squeeze(1)
        return quality


def _over_channels(norm: nn.BatchNorm1d, x: Tensor) -> Tensor:
    """`norm` on the last axis of [B, T, C]."""
    normed: Tensor = norm(x.transpose(1, 2))
    return normed.transpose(1, 2)
