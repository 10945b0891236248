"""Convolutions over the past, of the vocoder and its f0 predictor.

Source: CosyVoice cosyvoice/transformer/convolution.py (CausalConv1d, CausalConv1dDownSample).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class CausalConv(nn.Conv1d):
    """A convolution over the past, zeros before the start: [B, C, T] -> [B, C', T]."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, ((self.kernel_size[0] - 1) * self.dilation[0], 0)))


class CausalDownsample(nn.Conv1d):
    """A strided convolution over the past: [B, C, n * stride + 1] -> [B, C', n] (stride > 1)."""

    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__(channels, out_channels, kernel_size=2 * stride, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (self.stride[0] - 1, 0)))
