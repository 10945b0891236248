"""The flow estimator as it runs: a table of modulations, joined projections, masks as channels.

What differs from the reference, and why:
- the time embedding and all modulations depend on the solver step alone, so they are a table of
  the solver's steps, read by one index; half a gigabyte of weights of the original is not needed;
- LayerNorm takes its scale and shift from that table, query, key and value are one product;
- frames of both rows lie one behind the other, [2 T, dim], so that each product adds its bias;
- the attention mask is carried by extra channels of query and key (`operators.FrameMask`).
Source: as the reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.checkpoint.config import EstimatorConfig
from cosyvoice_cpu.networks.deployed.operators import FrameAttention, FrameMask, RotaryTable
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import flow_estimator as reference

MODULATIONS = 6  # of a block: shift, scale, gate of the attention; the same of the feed-forward


class Block(nn.Module):
    """Attention and feed-forward, modulated by six rows [6, dim] of the table; [B T, dim]."""

    def __init__(self, config: EstimatorConfig, attention: FrameAttention) -> None:
        super().__init__()
        width = config.heads * config.dim_head
        self.attention = attention
        self.qkv = nn.Linear(config.dim, 3 * width)
        self.out = nn.Linear(width, config.dim)
        self.expand = nn.Linear(config.dim, config.ff_mult * config.dim)
        self.contract = nn.Linear(config.ff_mult * config.dim, config.dim)

    def forward(
        self,
        h: Tensor,
        rows: Sequence[Tensor],
        frames: tuple[Tensor, Tensor, Tensor],
        rotary: RotaryTable,
    ) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = rows
        qkv = self.qkv(_modulated(h, scale_a, shift_a))
        attended = self.attention(qkv, frames, rotary.cos, rotary.sin)
        h = h + self.out(attended) * gate_a
        inner = F.gelu(self.expand(_modulated(h, scale_m, shift_m)), approximate="tanh")
        out: Tensor = h + self.contract(inner) * gate_m
        return out


class FlowEstimator(nn.Module):
    """Velocity of the flow at one of the solver's steps. T mel frames."""

    config_type = EstimatorConfig
    leaves: ClassVar[tuple[type[nn.Module], ...]] = (FrameMask, FrameAttention)
    tables: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self, config: EstimatorConfig, *, steps: int, positions: int, chunked: bool = False
    ) -> None:
        """For `steps` of a solver and frames up to `positions`.

        `chunked` keeps attention to a frame's own chunk and all before it (streaming).
        """
        super().__init__()
        self.config = config
        table = torch.empty(steps, MODULATIONS * config.depth + 2, config.dim)
        self.modulation = nn.Parameter(table, requires_grad=False)
        self.rotary = RotaryTable(config.dim_head, positions)
        self.mask = FrameMask(config.heads, config.static_chunk_size if chunked else None)
        self.input = nn.Linear(2 * config.mel_dim + config.mu_dim + config.spk_dim, config.dim)
        self.position = nn.ModuleDict(
            {
                name: nn.Conv1d(
                    config.dim,
                    config.dim,
                    reference.POSITION_KERNEL,
                    groups=config.POSITION_GROUPS,
                )
                for name in ("conv1", "conv2")
            }
        )
        attention = FrameAttention(config.heads, config.dim_head)
        self.blocks = nn.ModuleList(Block(config, attention) for _ in range(config.depth))
        self.final = nn.Linear(config.dim, config.mel_dim)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        cond: Tensor,
        speaker: Tensor,
        step: Tensor,
        valid_frames: Tensor,
    ) -> Tensor:
        """Velocity [B, 80, T]; what it holds at padding frames has no meaning.

        x, mu, cond [B, 80, T], speaker [B, 80], step int64 []; valid_frames int64 [1]: frames from
        there on are padding and change nothing before them.
        """
        frames = self.mask(x, valid_frames)
        spread = speaker.unsqueeze(2).expand(-1, -1, x.shape[2])
        joined = torch.cat([x, cond, mu, spread], dim=1).transpose(1, 2)  # [B, T, 320]
        h = self.input(joined.flatten(0, 1))  # [B T, dim]
        p = h.view(x.shape[0], -1, self.config.dim).transpose(1, 2)  # [B, dim, T]
        for name in ("conv1", "conv2"):
            p = F.mish(self.position[name](F.pad(p, (reference.POSITION_KERNEL - 1, 0))))
        h = h + p.transpose(1, 2).flatten(0, 1)
        table = self.modulation.index_select(0, step.view(1))[0]  # [6 depth + 2, dim]
        for index, block in enumerate(self.blocks):
            first = MODULATIONS * index
            h = block(h, [table[first + row] for row in range(MODULATIONS)], frames, self.rotary)
        velocity = self.final(_modulated(h, table[-2], table[-1]))
        out: Tensor = velocity.view(x.shape[0], -1, self.config.mel_dim).transpose(1, 2)
        return out

    def graph(self, variant: str) -> nn.Module:
        """The module of a graph: "full", or "chunked" for streaming, on the same layers."""
        chunked = {"full": False, "chunked": True}[variant]
        if chunked == (self.mask.chunk is not None):
            return self
        other = type(self).blank(self.config, self.state_dict(), chunked=chunked)
        for name, child in self.named_children():  # as they are, integer layers too
            if child is not self.mask:
                setattr(other, name, child)
        other.modulation = self.modulation
        return other

    @classmethod
    def blank(
        cls, config: EstimatorConfig, tensors: Mapping[str, Tensor], *, chunked: bool = False
    ) -> FlowEstimator:
        """Without values, on the meta device, for as many steps and positions as `tensors`."""
        steps, positions = (len(tensors[name]) for name in ("modulation", "rotary.cos"))
        with torch.device("meta"):
            return cls(config, steps=steps, positions=positions, chunked=chunked).eval()

    @classmethod
    def from_reference(
        cls, network: reference.FlowEstimator, times: Floats, positions: int
    ) -> FlowEstimator:
        """For the solver's `times` [steps] and frames up to `positions`."""
        embedding = network.input_embed
        cosine, sine = network.rotary_embed(positions)
        tensors = {
            "modulation": modulation_table(network, times),
            "rotary.cos": cosine,
            "rotary.sin": sine,
            **layer_tensors("input", embedding.proj),
            **layer_tensors("position.conv1", embedding.conv_pos_embed.conv1[0]),
            **layer_tensors("position.conv2", embedding.conv_pos_embed.conv2[0]),
            **layer_tensors("final", network.proj_out),
        }
        for i, block in enumerate(cast("Sequence[reference.Block]", network.transformer_blocks)):
            attention = block.attn
            tensors |= {
                **layer_tensors(f"blocks.{i}.qkv", attention.to_q, attention.to_k, attention.to_v),
                **layer_tensors(f"blocks.{i}.out", attention.to_out[0]),
                **layer_tensors(f"blocks.{i}.expand", block.ff.ff.get_submodule("0.0")),
                **layer_tensors(f"blocks.{i}.contract", block.ff.ff[2]),
            }
        own = cls.blank(network.config, tensors)
        own.load_state_dict(tensors, assign=True)
        return own


@torch.no_grad()
def modulation_table(network: reference.FlowEstimator, times: Floats) -> Tensor:
    """Modulations [steps, 6 depth + 2, dim] at the solver's `times`, scales as 1 + scale.

    Per block: shift, scale, gate of the attention, shift, scale, gate of the feed-forward; at the
    end scale and shift of the last norm.
    """
    time = F.silu(network.time_embed(torch.tensor(times)))  # [steps, dim]
    dim = network.config.dim
    blocks = cast("Sequence[reference.Block]", network.transformer_blocks)
    rows = [block.attn_norm.linear(time).unflatten(1, (MODULATIONS, dim)) for block in blocks]
    for block_rows in rows:
        block_rows[:, [1, 4]] += 1
    final = network.norm_out.linear(time).unflatten(1, (2, dim))
    final[:, 0] += 1
    return torch.cat([*rows, final], dim=1)


def _modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm with scale and shift from the table (scales are stored as 1 + scale)."""
    return F.layer_norm(h, (scale.shape[0],), scale, shift, reference.NORM_EPS)
