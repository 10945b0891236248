"""The speech LM as torch's FX can trace it: one graph for prefill and decode, as in the bundle.

Attention is one opaque module, since a KV cache and a mask that depends on it are no tensors of the
graph; every product that can be quantized lies outside of it. Modules are named as the weights.
Source: as `networks.speech_lm`, of which this is the form with joined projections.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.networks.reference.speech_lm import rotate
from cosyvoice_cpu.quantization.fx.layers import GraphFacts, StoredLayers


class Past:
    """Keys and values of the positions read so far, [1, kv heads, L, head_dim] for each layer."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def length(self, layer: int) -> int:
        """Positions that `layer` has read."""
        return self._kept[layer][0].shape[2] if layer in self._kept else 0

    def append(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Everything up to here, the new positions included."""
        if layer in self._kept:
            keys = torch.cat([self._kept[layer][0], keys], dim=2)
            values = torch.cat([self._kept[layer][1], values], dim=2)
        self._kept[layer] = keys, values
        return keys, values


class CachedAttention(nn.Module):
    """Causal grouped-query attention over one joined product; [1, S, q + k + v] to [1, S, q]."""

    def __init__(self, stored: StoredLayers, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        self._tables = stored.tensor("rotary.cos"), stored.tensor("rotary.sin")

    def forward(self, qkv: Tensor, past: Past, layer: int) -> Tensor:
        first, length = past.length(layer), qkv.shape[1]
        angles = [table[first : first + length] for table in self._tables]
        rotary = (torch.cat([angles[0]] * 2, dim=1), torch.cat([angles[1]] * 2, dim=1))
        heads = torch.unflatten(qkv, 2, (self.heads + 2 * self.kv_heads, -1)).transpose(1, 2)
        groups = [self.heads, self.kv_heads, self.kv_heads]
        q, k, v = heads.split(groups, dim=1)  # type: ignore[no-untyped-call]
        k, v = past.append(layer, rotate(k, rotary), v)
        allowed = torch.ones(length, k.shape[2], dtype=torch.bool).tril(first)
        mixed = F.scaled_dot_product_attention(
            rotate(q, rotary), k, v, attn_mask=allowed, enable_gqa=True
        )
        return mixed.transpose(1, 2).flatten(2)


class DecoderLayer(nn.Module):
    """Pre-norm attention and SwiGLU, each with a residual; [1, S, H] to [1, S, H]."""

    def __init__(
        self, stored: StoredLayers, name: str, attention: CachedAttention, epsilon: float
    ) -> None:
        super().__init__()
        self.attention_norm = _norm(stored, f"{name}.attention_norm", epsilon)
        self.qkv = stored.linear(f"{name}.qkv")
        self.attention = attention
        self.out = stored.linear(f"{name}.out")
        self.mlp_norm = _norm(stored, f"{name}.mlp_norm", epsilon)
        self.gate_up = stored.linear(f"{name}.gate_up")
        self.down = stored.linear(f"{name}.down")

    def forward(self, x: Tensor, past: Past, layer: int) -> Tensor:
        attended = self.attention(self.qkv(self.attention_norm(x)), past, layer)
        x = x + self.out(attended)
        halves = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        out: Tensor = x + self.down(F.silu(halves[0]) * halves[1])
        return out


class TraceableSpeechLM(nn.Module):
    """Embedding rows [1, S, H] to logits [wanted, table rows] of the last `wanted` positions."""

    opaque: ClassVar[tuple[type[nn.Module], ...]] = (CachedAttention,)

    def __init__(self, stored: StoredLayers, facts: GraphFacts) -> None:
        super().__init__()
        heads = [
            facts.attribute("GroupQueryAttention", name) for name in ("num_heads", "kv_num_heads")
        ]
        epsilon = facts.attribute("SkipSimplifiedLayerNormalization", "epsilon")
        attention = CachedAttention(stored, *heads)
        self.layers = nn.ModuleList(
            DecoderLayer(stored, f"layers.{i}", attention, epsilon)
            for i in range(stored.count("layers.{}.qkv.weight"))
        )
        self.norm = _norm(stored, "norm", epsilon)
        self.head = stored.linear("head")

    def forward(self, rows: Tensor, past: Past, wanted: int) -> Tensor:
        for index, layer in enumerate(self.layers):
            rows = layer(rows, past, index)
        logits: Tensor = self.head(self.norm(rows)[0, -wanted:])
        return logits


def _norm(stored: StoredLayers, name: str, epsilon: float) -> nn.RMSNorm:
    weight = stored.tensor(f"{name}.weight")
    norm = nn.RMSNorm(len(weight), eps=epsilon, device="meta")
    norm.weight = nn.Parameter(weight, requires_grad=False)
    return norm
