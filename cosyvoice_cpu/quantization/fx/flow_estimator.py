"""The flow estimator as torch's FX can trace it: modulations from the table, joined projections.

Attention is one opaque module, since its mask depends on lengths. It takes unpadded frames only.
Modules are named as the bundle's weights. Source: as `networks.flow_estimator`.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.networks.reference.flow_estimator import attention_mask, rotate_first_head
from cosyvoice_cpu.quantization.fx.layers import GraphFacts, StoredLayers, look_back

_MODULATIONS = 6  # per block: shift, scale, gate of attention; shift, scale, gate of the MLP


class FrameAttention(nn.Module):
    """Attention over frames, rotary positions in the first head; [B, T, 3 D] to [B, T, D]."""

    def __init__(self, stored: StoredLayers, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self._tables = stored.tensor("rotary.cos"), stored.tensor("rotary.sin")

    def forward(self, qkv: Tensor, chunk: int | None) -> Tensor:
        """`chunk` frames share what they may attend to, which ends with them; None: everything."""
        frames = qkv.shape[1]
        rotary = (self._tables[0][:frames], self._tables[1][:frames])
        q, k, v = qkv.chunk(3, dim=2)
        q, k, v = (
            torch.unflatten(part, 2, (self.heads, -1)).transpose(1, 2)
            for part in (rotate_first_head(q, rotary), rotate_first_head(k, rotary), v)
        )
        present = torch.ones(qkv.shape[:2], dtype=torch.bool)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attention_mask(present, chunk))
        return mixed.transpose(1, 2).flatten(2)


class Block(nn.Module):
    """Attention and feed-forward, modulated by six rows [6, dim] of the table; [B, T, dim]."""

    def __init__(self, stored: StoredLayers, name: str, attention: FrameAttention) -> None:
        super().__init__()
        self.attention = attention
        self.qkv = stored.linear(f"{name}.qkv")
        self.out = stored.linear(f"{name}.out")
        self.expand = stored.linear(f"{name}.expand")
        self.contract = stored.linear(f"{name}.contract")

    def forward(self, h: Tensor, rows: Tensor, width: int, chunk: int | None) -> Tensor:
        attended = self.attention(self.qkv(_modulated(h, rows[1], rows[0], width)), chunk)
        h = h + self.out(attended) * rows[2]
        inner = F.gelu(self.expand(_modulated(h, rows[4], rows[3], width)), approximate="tanh")
        out: Tensor = h + self.contract(inner) * rows[5]
        return out


class TraceableFlowEstimator(nn.Module):
    """Velocity [B, 80, T] at one of the solver's steps; every frame counts."""

    opaque: ClassVar[tuple[type[nn.Module], ...]] = (FrameAttention,)
    modulation: Tensor  # [steps, 6 depth + 2, dim]

    def __init__(self, stored: StoredLayers, facts: GraphFacts) -> None:
        super().__init__()
        self.register_buffer("modulation", stored.tensor("modulation"))
        self.width = self.modulation.shape[2]
        self.input = stored.linear("input")
        self.position = nn.ModuleDict(
            {name: stored.convolution(f"position.{name}", facts) for name in ("conv1", "conv2")}
        )
        attention = FrameAttention(stored, facts.attribute("MultiHeadAttention", "num_heads"))
        self.blocks = nn.ModuleList(
            Block(stored, f"blocks.{i}", attention)
            for i in range(stored.count("blocks.{}.qkv.weight"))
        )
        self.final = stored.linear("final")

    def forward(
        self, x: Tensor, mu: Tensor, cond: Tensor, speaker: Tensor, step: int, chunk: int | None
    ) -> Tensor:
        """x, mu, cond [B, 80, T], speaker [B, 80]; `chunk` in frames under the streaming mask."""
        spread = speaker.unsqueeze(2).expand_as(mu)
        h = self.input(torch.cat([x, cond, mu, spread], dim=1).transpose(1, 2))  # [B, T, dim]
        p = h.transpose(1, 2)
        p = F.mish(look_back(self.position["conv1"], p))
        p = F.mish(look_back(self.position["conv2"], p))
        h = h + p.transpose(1, 2)
        table = self.modulation[step]
        for index, block in enumerate(self.blocks):
            first = _MODULATIONS * index
            h = block(h, table[first : first + _MODULATIONS], self.width, chunk)
        velocity = self.final(_modulated(h, table[-2], table[-1], self.width))
        out: Tensor = velocity.transpose(1, 2)
        return out


def _modulated(h: Tensor, scale: Tensor, shift: Tensor, width: int) -> Tensor:
    """LayerNorm with scale and shift from the table (scales are stored as 1 + scale)."""
    return F.layer_norm(h, (width,), scale, shift, eps=1e-6)
