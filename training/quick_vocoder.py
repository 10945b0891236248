"""The vocoder's generator in training: the same function in two thirds of the time.

Two thirds of the time of a step are causal convolutions, which are faster with channels last
(their weights' gradients twice as fast, while bfloat16 is slower than float32 where a processor has
no tiles for it), and a quarter is Snake, here with its own derivative in few passes. In evaluation
the modules are exact.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cosyvoice_cpu.networks.reference.convolutions import CausalConv
from cosyvoice_cpu.networks.reference.vocoder import SNAKE_EPS, Snake, Vocoder


class QuickConv(CausalConv):
    """A causal convolution, in training as one of images that are one pixel high."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        past = (self.kernel_size[0] - 1) * self.dilation[0]
        image = x[:, :, None].contiguous(memory_format=torch.channels_last)
        return F.conv2d(
            F.pad(image, (past, 0)),
            self.weight[:, :, None],
            self.bias,
            dilation=(1, self.dilation[0]),
        )[:, :, 0]


class QuickSnake(Snake):
    """Snake, its derivative written out."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _SnakeFunction.apply(x, self.alpha)  # type: ignore[no-untyped-call]
        return result


def quickened(network: Vocoder) -> Vocoder:
    """`network` itself, its causal convolutions and Snakes now quick ones."""
    for module in network.modules():
        if type(module) is CausalConv:
            module.__class__ = QuickConv
        elif type(module) is Snake:
            module.__class__ = QuickSnake
    return network


class _SnakeFunction(torch.autograd.Function):
    """x + (1 - cos 2ax) / 2a, which is x + sin^2(ax) / a; x [B, C, T], a [C]."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor) -> Tensor:
        ctx.save_for_backward(x, alpha)
        double = 2 * alpha[:, None]
        height = 1 / (double + 2 * SNAKE_EPS)
        return torch.addcmul(x + height, torch.cos(x * double), height, value=-1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        (gradient,) = gradients
        x, alpha = ctx.saved_tensors
        angle = x * (2 * alpha[:, None])
        slope = gradient * torch.sin(angle)
        rise = gradient.sum((0, 2)) - (gradient * torch.cos(angle)).sum((0, 2))
        return gradient + slope, (slope * x).sum((0, 2)) / alpha - rise / (2 * alpha.square())
