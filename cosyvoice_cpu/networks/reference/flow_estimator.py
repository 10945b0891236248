"""Flow estimator: a diffusion transformer (DiT) that gives the velocity of a noisy mel.

The released weights expect three oddities, which are kept: rotary positions reach only the first
attention head (the original rotates the joined heads with the width of one), the position
convolutions see padding, and the final modulation has scale before shift while the blocks have
shift before scale.
Source: CosyVoice cosyvoice/flow/DiT/dit.py and modules.py, after F5-TTS (arXiv 2410.06885).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import EstimatorConfig

_TIME_FEATURES = 256  # half sine, half cosine
POSITION_KERNEL = 31
NORM_EPS = 1e-6
_ROTARY_THETA = 10000.0


class TimeEmbedding(nn.Module):
    """Flow time t [B] in 0..1 -> [B, dim], through 128 sines and cosines of 1000 t."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.time_mlp = nn.Sequential(
            nn.Linear(_TIME_FEATURES, dim), nn.SiLU(), nn.Linear(dim, dim)
        )

    def forward(self, t: Tensor) -> Tensor:
        half = _TIME_FEATURES // 2
        index = torch.arange(half, device=t.device, dtype=torch.float32)
        frequency = torch.exp(index * -(math.log(10000) / (half - 1)))
        angle = 1000 * t[:, None] * frequency[None, :]  # [B, 128]
        features = torch.cat([angle.sin(), angle.cos()], dim=1)
        out: Tensor = self.time_mlp(features)
        return out


class CausalConvPositionEmbedding(nn.Module):
    """Two grouped convolutions over the past, each with a Mish; [B, T, dim] -> [B, T, dim].

    They are unmasked: padding frames see what is left of them.
    """

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        dim, groups = config.dim, config.POSITION_GROUPS
        self.conv1, self.conv2 = (
            nn.Sequential(nn.Conv1d(dim, dim, POSITION_KERNEL, groups=groups), nn.Mish())
            for _ in range(2)
        )

    def forward(self, h: Tensor) -> Tensor:
        h = h.transpose(1, 2)  # [B, dim, T]
        for conv in (self.conv1, self.conv2):
            h = conv(F.pad(h, (POSITION_KERNEL - 1, 0)))
        return h.transpose(1, 2)


class InputEmbedding(nn.Module):
    """x, cond, mu [B, 80, T] and speaker [B, 80] -> [B, T, dim], with convolutions for position."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        width = 2 * config.mel_dim + config.mu_dim + config.spk_dim
        self.proj = nn.Linear(width, config.dim)
        self.conv_pos_embed = CausalConvPositionEmbedding(config)

    def forward(self, x: Tensor, cond: Tensor, mu: Tensor, speaker: Tensor) -> Tensor:
        spread = speaker[:, :, None].expand(-1, -1, x.shape[2])
        joined = torch.cat([x, cond, mu, spread], dim=1).transpose(1, 2)  # [B, T, 320]
        h: Tensor = self.proj(joined)
        out: Tensor = h + self.conv_pos_embed(h)
        return out


class RotaryEmbedding(nn.Module):
    """Cosine and sine [T, dim_head / 2] of T frames; position 0 is the first of the prompt.

    `inv_freq` [dim_head / 2], in rad per frame, is in the files, but follows from `dim_head`:
    it is never read, since a file in half precision would turn late frames by a radian.
    """

    inv_freq: Tensor

    def __init__(self, dim_head: int) -> None:
        super().__init__()
        pair = torch.arange(0, dim_head, 2, dtype=torch.float32, device="cpu")
        self.register_buffer("inv_freq", 1.0 / _ROTARY_THETA ** (pair / dim_head))

    def forward(self, frames: int) -> tuple[Tensor, Tensor]:
        position = torch.arange(frames, device=self.inv_freq.device, dtype=torch.float32)
        angle = position[:, None] * self.inv_freq[None, :]
        return angle.cos(), angle.sin()


class Attention(nn.Module):
    """Self-attention over frames; [B, T, dim] -> [B, T, dim], padding frames to 0."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.heads = config.heads
        width = config.heads * config.dim_head
        self.to_q = nn.Linear(config.dim, width)
        self.to_k = nn.Linear(config.dim, width)
        self.to_v = nn.Linear(config.dim, width)
        self.to_out = nn.Sequential(nn.Linear(width, config.dim))  # the original adds a dropout

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, allowed: Tensor | None
    ) -> Tensor:
        q = self._heads(rotate_first_head(self.to_q(x), rotary))  # [B, heads, T, dim_head]
        k = self._heads(rotate_first_head(self.to_k(x), rotary))
        v = self._heads(self.to_v(x))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))
        return out.masked_fill(~mask[:, :, None], 0)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class FeedForward(nn.Module):
    """[B, T, dim] -> [B, T, dim], with the tanh form of GELU between the two products."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        inner = config.ff_mult * config.dim
        self.ff = nn.Sequential(
            nn.Sequential(nn.Linear(config.dim, inner), nn.GELU(approximate="tanh")),
            nn.Identity(),  # dropout in the original
            nn.Linear(inner, config.dim),
        )

    def forward(self, h: Tensor) -> Tensor:
        out: Tensor = self.ff(h)
        return out


class Modulation(nn.Module):
    """Scales, shifts and gates of a norm, `parts` tensors [B, 1, dim], from time [B, dim]."""

    def __init__(self, dim: int, parts: int) -> None:
        super().__init__()
        self.parts = parts
        self.linear = nn.Linear(dim, parts * dim)

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        modulation: Tensor = self.linear(F.silu(time))[:, None, :]
        return modulation.chunk(self.parts, dim=2)


class Block(nn.Module):
    """Attention and feed-forward, each normalized, modulated by time and gated; [B, T, dim]."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.attn_norm = Modulation(config.dim, 6)
        self.attn = Attention(config)
        self.ff = FeedForward(config)

    def forward(
        self,
        h: Tensor,
        time: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor,
        allowed: Tensor | None,
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.attn_norm(time)
        h = h + gate_a * self.attn(modulate(h, scale_a, shift_a), rotary, mask, allowed)
        out: Tensor = h + gate_m * self.ff(modulate(h, scale_m, shift_m))
        return out


class FlowEstimator(nn.Module):
    """Velocity of the flow at time t. B batch, T mel frames, 80 mel bins."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embed = TimeEmbedding(config.dim)
        self.input_embed = InputEmbedding(config)
        self.rotary_embed = RotaryEmbedding(config.dim_head)
        self.transformer_blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm_out = Modulation(config.dim, 2)
        self.proj_out = nn.Linear(config.dim, config.mel_dim)

    def forward(
        self,
        x: Tensor,
        mask: Tensor,
        mu: Tensor,
        t: Tensor,
        speaker: Tensor,
        cond: Tensor,
        *,
        streaming: bool = False,
    ) -> Tensor:
        """Velocity [B, 80, T].

        x, mu, cond [B, 80, T]; mask [B, 1, T], nonzero = frame, zero = right padding; t [B];
        speaker [B, 80]. `streaming` keeps attention to a frame's own chunk and all before it.
        """
        frames = mask[:, 0] > 0  # [B, T]
        allowed = attention_mask(frames, self.config.static_chunk_size if streaming else None)
        rotary = self.rotary_embed(x.shape[2])
        time = self.time_embed(t)
        h = self.input_embed(x, cond, mu, speaker)
        for block in self.transformer_blocks:
            h = block(h, time, rotary, frames, allowed)
        scale, shift = self.norm_out(time)
        velocity: Tensor = self.proj_out(modulate(h, scale, shift))
        return velocity.transpose(1, 2)  # [B, 80, T]


def modulate(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm without parameters, then scaled and shifted by [B, 1, dim]; h [B, T, dim]."""
    return F.layer_norm(h, (h.shape[2],), eps=NORM_EPS) * (1 + scale) + shift


def rotate_first_head(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate interleaved channel pairs of the first head of x [B, T, heads * dim_head]."""
    cosine, sine = rotary  # [T, dim_head / 2]
    width = 2 * cosine.shape[1]
    even, odd = x[..., 0:width:2], x[..., 1:width:2]
    turned = torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=3)
    return torch.cat([turned.flatten(2), x[..., width:]], dim=2)


def attention_mask(frames: Tensor, chunk: int | None) -> Tensor | None:
    """Which frame may attend to which, True = may: [B, 1, 1 or T, T], or None for everything.

    `frames` [B, T] is True on frames and False on right padding. With a chunk, frame i sees
    j < (i // chunk + 1) chunk: its own chunk and all of the past.
    """
    length = frames.shape[1]
    if chunk is None and bool(frames.all()):
        return None  # the mask-free attention kernel is the fast one
    allowed = frames[:, None, None, :]  # [B, 1, 1, T]
    if chunk is not None:
        index = torch.arange(length, device=frames.device)
        end = (index // chunk + 1) * chunk
        allowed = allowed & (index[None, :] < end[:, None])  # [B, 1, T, T]
    # A row of nothing but padding sees everything: its softmax would be 0 / 0.
    return allowed | ~allowed.any(dim=3, keepdim=True)
