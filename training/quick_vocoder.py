"""The vocoder's generator in training: the same function in two thirds of the time.

Two thirds of the time of a step are convolutions of the residual blocks, which take bfloat16 while
the stream that they add to stays float32, and a quarter is Snake, here with its own derivative in
few passes. In evaluation the blocks are exact.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from cosyvoice_cpu.networks.reference.vocoder import SNAKE_EPS, ResBlock, Snake, Vocoder


class QuickSnake(Snake):
    """Snake, its derivative written out."""

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = _SnakeFunction.apply(x.float(), self.alpha)  # type: ignore[no-untyped-call]
        return result


class QuickResBlock(ResBlock):
    """A residual block, in training with products in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.training):
            return super().forward(x).float()


def quickened(network: Vocoder) -> Vocoder:
    """`network` itself, its residual blocks and Snakes now quick ones."""
    for module in network.modules():
        if type(module) is ResBlock:
            module.__class__ = QuickResBlock
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
