"""Flow estimator: a diffusion transformer (DiT) that gives the velocity of a noisy mel.

The released weights expect three oddities, which are kept: rotary positions reach only the first
attention head (the original rotates the joined heads with the width of one), the position
convolutions see padding, and the final modulation has scale before shift while the blocks have
shift before scale.
Source: CosyVoice cosyvoice/flow/DiT/dit.py and modules.py, after F5-TTS (arXiv 2410.06885).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import EstimatorConfig
from cosyvoice_cpu.networks.reference.flow_encoder import ESTIMATOR_PREFIX
from cosyvoice_cpu.networks.reference.official_keys import KeyTable, load_official, to_official

_TIME_FEATURES = 256  # half sine, half cosine
POSITION_KERNEL, POSITION_GROUPS = 31, 16
NORM_EPS = 1e-6
_ROTARY_THETA = 10000.0

FLOW_ESTIMATOR_KEYS = KeyTable(
    "flow_estimator",
    (
        ("time_embedding.expand.", "decoder.estimator.time_embed.time_mlp.0."),
        ("time_embedding.project.", "decoder.estimator.time_embed.time_mlp.2."),
        ("input_embedding.project.", "decoder.estimator.input_embed.proj."),
        ("input_embedding.conv1.", "decoder.estimator.input_embed.conv_pos_embed.conv1.0."),
        ("input_embedding.conv2.", "decoder.estimator.input_embed.conv_pos_embed.conv2.0."),
        ("blocks.#.modulation.", "decoder.estimator.transformer_blocks.#.attn_norm.linear."),
        ("blocks.#.attention.query.", "decoder.estimator.transformer_blocks.#.attn.to_q."),
        ("blocks.#.attention.key.", "decoder.estimator.transformer_blocks.#.attn.to_k."),
        ("blocks.#.attention.value.", "decoder.estimator.transformer_blocks.#.attn.to_v."),
        ("blocks.#.attention.out.", "decoder.estimator.transformer_blocks.#.attn.to_out.0."),
        ("blocks.#.expand.", "decoder.estimator.transformer_blocks.#.ff.ff.0.0."),
        ("blocks.#.contract.", "decoder.estimator.transformer_blocks.#.ff.ff.2."),
        ("final_modulation.", "decoder.estimator.norm_out.linear."),
        ("final_projection.", "decoder.estimator.proj_out."),
    ),
)
# A buffer in the files, which follows from dim_head.
_ROTARY_FREQUENCIES = "decoder.estimator.rotary_embed.inv_freq"


class TimeEmbedding(nn.Module):
    """Flow time t [B] in 0..1 -> [B, dim], through 128 sines and cosines of 1000 t."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.expand = nn.Linear(_TIME_FEATURES, dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, t: Tensor) -> Tensor:
        half = _TIME_FEATURES // 2
        index = torch.arange(half, device=t.device, dtype=torch.float32)
        frequency = torch.exp(index * -(math.log(10000) / (half - 1)))
        angle = 1000 * t[:, None] * frequency[None, :]  # [B, 128]
        features = torch.cat([angle.sin(), angle.cos()], dim=1)
        out: Tensor = self.project(F.silu(self.expand(features)))
        return out


class InputEmbedding(nn.Module):
    """x, cond, mu [B, 80, T] and speaker [B, 80] -> [B, T, dim], with convolutions for position.

    The two grouped convolutions are causal and unmasked: padding frames see what is left of them.
    """

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        width = 2 * config.mel_dim + config.mu_dim + config.spk_dim
        self.project = nn.Linear(width, config.dim)
        self.conv1 = nn.Conv1d(config.dim, config.dim, POSITION_KERNEL, groups=POSITION_GROUPS)
        self.conv2 = nn.Conv1d(config.dim, config.dim, POSITION_KERNEL, groups=POSITION_GROUPS)

    def forward(self, x: Tensor, cond: Tensor, mu: Tensor, speaker: Tensor) -> Tensor:
        spread = speaker[:, :, None].expand(-1, -1, x.shape[2])
        joined = torch.cat([x, cond, mu, spread], dim=1).transpose(1, 2)  # [B, T, 320]
        h: Tensor = self.project(joined)
        p = h.transpose(1, 2)  # [B, dim, T]
        for conv in (self.conv1, self.conv2):
            p = F.mish(conv(F.pad(p, (POSITION_KERNEL - 1, 0))))
        return h + p.transpose(1, 2)


class Attention(nn.Module):
    """Self-attention over frames; [B, T, dim] -> [B, T, dim], padding frames to 0."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.heads = config.heads
        width = config.heads * config.dim_head
        self.query = nn.Linear(config.dim, width)
        self.key = nn.Linear(config.dim, width)
        self.value = nn.Linear(config.dim, width)
        self.out = nn.Linear(width, config.dim)

    def forward(
        self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor, allowed: Tensor | None
    ) -> Tensor:
        q = self._heads(rotate_first_head(self.query(x), rotary))  # [B, heads, T, dim_head]
        k = self._heads(rotate_first_head(self.key(x), rotary))
        v = self._heads(self.value(x))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out.masked_fill(~mask[:, :, None], 0)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)


class Block(nn.Module):
    """Attention and feed-forward, each normalized, modulated by time and gated; [B, T, dim]."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.modulation = nn.Linear(config.dim, 6 * config.dim)
        self.attention = Attention(config)
        self.expand = nn.Linear(config.dim, config.ff_mult * config.dim)
        self.contract = nn.Linear(config.ff_mult * config.dim, config.dim)

    def forward(
        self,
        h: Tensor,
        time: Tensor,
        rotary: tuple[Tensor, Tensor],
        mask: Tensor,
        allowed: Tensor | None,
    ) -> Tensor:
        modulation = self.modulation(F.silu(time))[:, None, :]  # [B, 1, 6 dim]
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=2)
        attended = self.attention(modulate(h, scale_a, shift_a), rotary, mask, allowed)
        h = h + gate_a * attended
        inner = F.gelu(self.expand(modulate(h, scale_m, shift_m)), approximate="tanh")
        out: Tensor = h + gate_m * self.contract(inner)
        return out


class FlowEstimator(nn.Module):
    """Velocity of the flow at time t. B batch, T mel frames, 80 mel bins."""

    def __init__(self, config: EstimatorConfig) -> None:
        super().__init__()
        self.config = config
        self.time_embedding = TimeEmbedding(config.dim)
        self.input_embedding = InputEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.final_modulation = nn.Linear(config.dim, 2 * config.dim)
        self.final_projection = nn.Linear(config.dim, config.mel_dim)

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
        rotary = rotary_table(self.config.dim_head, x.shape[2], x.device)
        time = self.time_embedding(t)
        h = self.input_embedding(x, cond, mu, speaker)
        for block in self.blocks:
            h = block(h, time, rotary, frames, allowed)
        scale, shift = self.final_modulation(F.silu(time))[:, None, :].chunk(2, dim=2)
        velocity: Tensor = self.final_projection(modulate(h, scale, shift))
        return velocity.transpose(1, 2)  # [B, 80, T]

    @classmethod
    def from_tensors(cls, config: EstimatorConfig, tensors: Mapping[str, Tensor]) -> FlowEstimator:
        """The estimator of a `flow.pt`, by official names. Raises: CheckpointError.

        The encoder's tensors, which the same file holds, are not looked at.
        """
        with torch.device("meta"):
            network = cls(config)
        own = {k: v for k, v in tensors.items() if k.startswith(ESTIMATOR_PREFIX)}
        own.pop(_ROTARY_FREQUENCIES, None)
        load_official(network, FLOW_ESTIMATOR_KEYS, own)
        return network.eval()

    def to_official(self) -> dict[str, Tensor]:
        """The tensors as `flow.pt` names them (the estimator's part of that file)."""
        tensors = to_official(self, FLOW_ESTIMATOR_KEYS)
        tensors[_ROTARY_FREQUENCIES] = rotary_frequencies(self.config.dim_head)
        return tensors


def rotary_frequencies(dim_head: int, device: torch.device | None = None) -> Tensor:
    """Angle per frame of each channel pair, [dim_head / 2] in rad."""
    pair = torch.arange(0, dim_head, 2, device=device, dtype=torch.float32)
    return 1.0 / _ROTARY_THETA ** (pair / dim_head)


def rotary_table(dim_head: int, frames: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosine and sine [frames, dim_head / 2]; position 0 is the first frame of the prompt."""
    position = torch.arange(frames, device=device, dtype=torch.float32)
    angle = position[:, None] * rotary_frequencies(dim_head, device)[None, :]
    return angle.cos(), angle.sin()


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
