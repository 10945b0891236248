"""The flow estimator as it runs: a table of modulations, joined projections, masks as channels.

What differs from the reference, and why:
- the time embedding and all modulations depend on the solver step alone, so they are a table of
  the solver's steps, read by one index; half a gigabyte of weights of the original is not needed;
- LayerNorm takes its scale and shift from that table, query, key and value are one product;
- frames of both rows lie one behind the other, [2 T, dim], so that each product adds its bias;
- padding is cut off keys and values, and the streaming mask is carried by extra channels of query
  and key (`operators.ChunkMask`).
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
from cosyvoice_cpu.networks.deployed.operators import (
    CachedFrameAttention,
    ChunkedFrameAttention,
    ChunkMask,
    FrameAttention,
    FramePositions,
    RotaryTable,
)
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import flow_estimator as reference

MODULATIONS = 6  # of a block: shift, scale, gate of the attention; the same of the feed-forward


class Block(nn.Module):
    """What is before and behind an attention, modulated by six rows [6, dim] of the table."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        width = config.heads * config.dim_head
        self.qkv = nn.Linear(config.dim, 3 * width)
        self.out = nn.Linear(width, config.dim)
        self.expand = nn.Linear(config.dim, config.ff_mult * config.dim)
        self.contract = nn.Linear(config.ff_mult * config.dim, config.dim)

    def attended_to(self, h: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """Query, key and value [B T, 3 heads dim_head] of h [B T, dim]."""
        shift, scale = rows[:2]
        qkv: Tensor = self.qkv(modulated(h, scale, shift))
        return qkv

    def behind_attention(self, h: Tensor, attended: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """The block's output from its input and what attention made of it."""
        gate_a, shift_m, scale_m, gate_m = rows[2:]
        h = h + self.out(attended) * gate_a
        inner = F.gelu(self.expand(modulated(h, scale_m, shift_m)), approximate="tanh")
        out: Tensor = h + self.contract(inner) * gate_m
        return out


class FlowEstimator(nn.Module):
    """Velocity of the flow at one of the solver's steps. T mel frames."""

    config_type = EstimatorConfig
    leaves: ClassVar[tuple[type[nn.Module], ...]] = (
        FramePositions,
        ChunkMask,
        FrameAttention,
        ChunkedFrameAttention,
    )
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
        self.chunked = chunked
        self.frames = (
            ChunkMask(config.heads, config.static_chunk_size) if chunked else FramePositions()
        )
        attention = ChunkedFrameAttention if chunked else FrameAttention
        self.attention = attention(config.heads, config.dim_head)
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
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
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
        frames = self.frames(x, valid_frames)
        h = self.input(joined_input(x, cond, mu, speaker))
        p = h.view(x.shape[0], -1, self.config.dim).transpose(1, 2)  # [B, dim, T]
        for name in ("conv1", "conv2"):
            p = F.mish(self.position[name](F.pad(p, (reference.POSITION_KERNEL - 1, 0))))
        h = h + p.transpose(1, 2).flatten(0, 1)
        table = self.modulation.index_select(0, step.view(1))[0]  # [6 depth + 2, dim]
        for index, block in enumerate(cast("Sequence[Block]", self.blocks)):
            rows = rows_of_block(table, index)
            qkv = block.attended_to(h, rows)
            attended = self.attention(qkv, frames, self.rotary.cos, self.rotary.sin)
            h = block.behind_attention(h, attended, rows)
        velocity = self.final(modulated(h, table[-2], table[-1]))
        out: Tensor = velocity.view(x.shape[0], -1, self.config.mel_dim).transpose(1, 2)
        return out

    def graph(self, variant: str) -> nn.Module:
        """The module of a graph on the same layers: "full", "chunked" for streaming as the original
        computes it, "stream" for one chunk with the past in caches.
        """
        if variant == "stream":
            return FlowEstimatorStream(self)
        chunked = {"full": False, "chunked": True}[variant]
        if chunked == self.chunked:
            return self
        other = type(self).blank(self.config, self.state_dict(), chunked=chunked)
        for name, child in self.named_children():  # as they are, integer layers too
            if child not in (self.frames, self.attention):
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


class FlowEstimatorStream(nn.Module):
    """Velocity of some frames whose past is in caches; on the layers of a `FlowEstimator`.

    All new frames attend to each other, so they are those of one chunk of the streaming mask, or
    the first of the last one. Keys and values are kept in half precision, those of the new frames
    too, so that it makes no difference when a frame's were computed.
    """

    def __init__(self, whole: FlowEstimator) -> None:
        super().__init__()
        self.config = whole.config
        self.modulation, self.rotary, self.input = whole.modulation, whole.rotary, whole.input
        self.position, self.blocks, self.final = whole.position, whole.blocks, whole.final
        self.attention = CachedFrameAttention(self.config.heads, self.config.dim_head)

    def forward(
        self,
        x: Tensor,
        mu: Tensor,
        cond: Tensor,
        speaker: Tensor,
        step: Tensor,
        position: Tensor,
        history: Tensor,
        *past: Tensor,
    ) -> tuple[Tensor, ...]:
        """Velocity [B, 80, T], the history of the next frames, key and value of each block.

        x, mu, cond [B, 80, T], speaker [B, 80], step int64 []; position int64 [1] of the first
        frame. history [2, B, dim, 30]: what the two position convolutions took last, zeros at the
        start. past: for each block key and value of the prompt, then of recent frames,
        [B, heads, frames, dim_head] in half precision; those of the new frames come back alike.
        """
        batch = x.shape[0]
        positions = (position + torch.arange(x.shape[2])).unsqueeze(0).expand(batch, -1)
        h = self.input(joined_input(x, cond, mu, speaker))  # [B T, dim]
        p = h.view(batch, -1, self.config.dim).transpose(1, 2)  # [B, dim, T]
        kept = []
        for index, name in enumerate(("conv1", "conv2")):
            p = torch.cat([history[index], p], dim=2)
            kept.append(p[:, :, -history.shape[3] :])
            p = F.mish(self.position[name](p))
        h = h + p.transpose(1, 2).flatten(0, 1)
        table = self.modulation.index_select(0, step.view(1))[0]
        present: list[Tensor] = []
        for index, block in enumerate(cast("Sequence[Block]", self.blocks)):
            rows = rows_of_block(table, index)
            attended, *fresh = self.attention(
                *(block.attended_to(h, rows), positions, self.rotary.cos, self.rotary.sin),
                past[4 * index : 4 * index + 4],
            )
            h = block.behind_attention(h, attended, rows)
            present += fresh
        velocity = self.final(modulated(h, table[-2], table[-1]))
        velocity = velocity.view(batch, -1, self.config.mel_dim).transpose(1, 2)
        return velocity, torch.stack(kept), *present


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


def joined_input(x: Tensor, cond: Tensor, mu: Tensor, speaker: Tensor) -> Tensor:
    """[B T, 320] of x, cond, mu [B, 80, T] and speaker [B, 80]."""
    spread = speaker.unsqueeze(2).expand(-1, -1, x.shape[2])
    return torch.cat([x, cond, mu, spread], dim=1).transpose(1, 2).flatten(0, 1)


def rows_of_block(table: Tensor, block: int) -> list[Tensor]:
    """The modulations [dim] of a block from those of one step [6 depth + 2, dim]."""
    return [table[MODULATIONS * block + row] for row in range(MODULATIONS)]


def modulated(h: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """LayerNorm with scale and shift from the table (scales are stored as 1 + scale)."""
    return F.layer_norm(h, (scale.shape[0],), scale, shift, reference.NORM_EPS)
