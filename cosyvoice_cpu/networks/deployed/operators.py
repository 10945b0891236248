"""Operators that ONNX Runtime has fused kernels for: torch in eager mode, those at export.

Leaf modules: FX calls them and does not look inside, `torch.onnx.export` finds one symbolic node.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Finite, and far below any score: exp() of it is 0 in float32, and its products stay finite.
_FORBIDDEN = -1e9


def _fused(operator: str, inputs: Sequence[Tensor], like: Tensor, **attributes: Any) -> Tensor:
    """A node of ONNX Runtime's own domain, whose output is as `like`."""
    out: Tensor = torch.onnx.ops.symbolic(
        f"com.microsoft::{operator}",
        inputs,
        attributes,
        dtype=like.dtype,
        shape=like.shape,
        version=1,
    )
    return out


class RotaryTable(nn.Module):
    """Cosine and sine [positions, C / 2] for heads of C channels; stored, not computed."""

    cos: Tensor
    sin: Tensor

    def __init__(self, dim_head: int, positions: int) -> None:
        super().__init__()
        for name in ("cos", "sin"):
            self.register_buffer(name, torch.empty(positions, dim_head // 2))


class FramePositions(nn.Module):
    """Which frames there are: every one attends to all that are not padding."""

    def forward(self, x: Tensor, valid_frames: Tensor) -> tuple[Tensor, ...]:
        """Position ids of queries [B, T] and of keys [B, valid], and `valid_frames`; for x
        [B, C, T].

        `valid_frames` int64 [1]: frames from there on are padding, which nothing attends to.
        """
        positions = torch.arange(x.shape[2]).unsqueeze(0).expand(x.shape[0], -1)
        return positions, _first_frames(positions, valid_frames), valid_frames


class ChunkMask(nn.Module):
    """Which frame may attend to which while streaming, as extra channels of query and key.

    The product of the extra channels is 0 where attention is allowed and hugely negative
    elsewhere, so a mask-free attention kernel does the rest: it needs no [T, T] scores. At 3000
    frames that is 0.1 GB instead of 1.3 GB and a quarter of the time.
    """

    def __init__(self, heads: int, chunk: int) -> None:
        """`chunk` frames share what they may attend to, which ends with them."""
        super().__init__()
        self.heads, self.chunk = heads, chunk

    def forward(self, x: Tensor, valid_frames: Tensor) -> tuple[Tensor, ...]:
        """Position ids [B, T]; channels of query and of key [B, T, heads, E]; for x [B, C, T].

        `valid_frames` int64 [1]: frames from there on are padding, which nothing attends to.
        """
        batch, frames = x.shape[0], x.shape[2]
        index = torch.arange(frames)
        position = index.unsqueeze(1)  # [T, 1]
        own = torch.div(position, self.chunk, rounding_mode="floor")
        chunks = torch.arange((frames + self.chunk - 1) // self.chunk)
        query = (own == chunks).float()  # one-hot [T, chunks]
        key = (own > chunks) | (position >= valid_frames)
        shape = (batch, frames, self.heads, query.shape[1])
        forbidden = torch.where(key, _FORBIDDEN, 0.0)
        query, key = query[None, :, None].expand(shape), forbidden[None, :, None].expand(shape)
        return index.unsqueeze(0).expand(batch, frames), query, key


class FrameAttention(nn.Module):
    """Attention over frames with rotary positions in the first head.

    Every copy of a query, key or value costs as much as a norm, so each is cut out of the joined
    product once: the head that turns, the others, and of keys and values the valid frames alone.
    """

    def __init__(self, heads: int, dim_head: int) -> None:
        super().__init__()
        self.heads, self.dim_head = heads, dim_head

    def forward(
        self, qkv: Tensor, frames: tuple[Tensor, ...], cosine: Tensor, sine: Tensor
    ) -> Tensor:
        """[B T, 3 heads dim_head] to the attended values [B T, heads dim_head].

        `frames`: of `FramePositions`; cosine and sine [positions, dim_head / 2].
        """
        positions, key_positions, valid = frames
        width = self.heads * self.dim_head
        qkv = qkv.view(positions.shape[0], -1, 3 * width)
        query = self._rotated(qkv, 0, positions, cosine, sine)
        key = self._rotated(qkv, width, key_positions, cosine, sine, valid)
        value = _cut(qkv, 2 * width, 3 * width, valid)
        return self._mixed(query, key, value).flatten(0, 1)

    def _rotated(
        self,
        qkv: Tensor,
        first: int,
        positions: Tensor,
        cosine: Tensor,
        sine: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """[B, frames, heads dim_head] from channel `first` on, the first head rotated."""
        middle, end = first + self.dim_head, first + self.heads * self.dim_head
        head = rotate_pairs(_cut(qkv, first, middle, valid), positions, cosine, sine)
        if self.heads == 1:
            return head
        return torch.cat([head, _cut(qkv, middle, end, valid)], dim=2)

    def _mixed(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, T, heads dim_head]; keys and values the same or by head [B, heads, frames, C]."""
        scale = self.dim_head**-0.5
        if torch.onnx.is_in_onnx_export():
            return _fused(
                "MultiHeadAttention", [query, key, value], query, num_heads=self.heads, scale=scale
            )
        query, key, value = (
            part if part.dim() == 4 else self._heads(part).transpose(1, 2)
            for part in (query, key, value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)
        return mixed.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], -1, self.heads, self.dim_head)


class ChunkedFrameAttention(FrameAttention):
    """Attention with a `ChunkMask`."""

    def forward(
        self, qkv: Tensor, frames: tuple[Tensor, ...], cosine: Tensor, sine: Tensor
    ) -> Tensor:
        """As of all frames; `frames`: of `ChunkMask`."""
        positions, *masks = frames
        width = self.heads * self.dim_head
        scale = self.dim_head**-0.5
        qkv = qkv.view(positions.shape[0], -1, 3 * width)
        query, key = (
            self._heads(self._rotated(qkv, first, positions, cosine, sine)) for first in (0, width)
        )
        value = self._heads(qkv[:, :, 2 * width :])
        if torch.onnx.is_in_onnx_export():
            masked = [
                torch.cat([part, mask], dim=3).flatten(2)
                for part, mask in zip((query, key), masks, strict=True)
            ]
            value = value.flatten(2)
            mixed = _fused(
                "MultiHeadAttention", [*masked, value], value, num_heads=self.heads, scale=scale
            )
            return mixed.view(-1, width)
        allowed = masks[0][:, :, 0] @ masks[1][:, :, 0].transpose(1, 2) * scale  # [B, T, T]
        query, key, value = (part.transpose(1, 2) for part in (query, key, value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed[:, None])
        return mixed.transpose(1, 2).reshape(-1, width)


class CachedFrameAttention(FrameAttention):
    """Attention of new frames to a past in caches and to themselves; nothing is masked."""

    def forward(  # type: ignore[override]
        self,
        qkv: Tensor,
        positions: Tensor,
        cosine: Tensor,
        sine: Tensor,
        past: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Attended values [B T, heads dim_head], and keys and values of the new frames.

        qkv [B T, 3 heads dim_head], positions [B, T]; `past`: key, value of the prompt, key, value
        of recent frames, [B, heads, frames, dim_head] in half precision, as what comes back.
        """
        width = self.heads * self.dim_head
        qkv = qkv.view(positions.shape[0], -1, 3 * width)
        query, key = (self._rotated(qkv, first, positions, cosine, sine) for first in (0, width))
        prompt, recent = past[:2], past[2:]
        fresh = [self._heads(part).transpose(1, 2).half() for part in (key, qkv[:, :, 2 * width :])]
        key, value = (
            torch.cat(parts, dim=2).float() for parts in zip(prompt, recent, fresh, strict=True)
        )
        return self._mixed(query, key, value).flatten(0, 1), fresh[0], fresh[1]


def _cut(x: Tensor, first: int, end: int, valid: Tensor | None) -> Tensor:
    """Channels `first` to `end` of x [B, T, C]; of the frames up to `valid` int64 [1], if given."""
    if valid is None:
        return x[:, :, first:end]
    if torch.onnx.is_in_onnx_export():
        ends = torch.cat([valid, torch.tensor([end])])
        shape = (x.shape[0], x.shape[1], end - first)
        return _slice(x, [torch.tensor([0, first]), ends, torch.tensor([1, 2])], shape)
    return x[:, : int(valid), first:end]


def _first_frames(positions: Tensor, valid: Tensor) -> Tensor:
    """Of [B, T] those up to `valid` int64 [1]."""
    if torch.onnx.is_in_onnx_export():
        return _slice(positions, [torch.tensor([0]), valid, torch.tensor([1])], positions.shape)
    return positions[:, : int(valid)]


def _slice(x: Tensor, bounds: Sequence[Tensor], shape: Sequence[int | torch.SymInt]) -> Tensor:
    """ONNX's Slice to an end that the graph is given, which tracing has no shape for: `shape` is
    the largest.
    """
    out: Tensor = torch.onnx.ops.symbolic("Slice", [x, *bounds], dtype=x.dtype, shape=shape)
    return out


def rotate_pairs(x: Tensor, positions: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate neighbouring channel pairs of x [B, T, C] by the table rows of positions [B, T]."""
    if torch.onnx.is_in_onnx_export():
        return _fused(
            "RotaryEmbedding", [x, positions, cosine, sine], x, interleaved=1, num_heads=1
        )
    cosine, sine = cosine[positions], sine[positions]  # [B, T, C / 2]
    even, odd = x[..., ::2], x[..., 1::2]
    return torch.stack([even * cosine - odd * sine, odd * cosine + even * sine], dim=3).flatten(2)


class Spectrum(nn.Module):
    """Centred STFT, reflected at both ends of what is valid."""

    analysis: Tensor

    def __init__(self, size: int, hop: int, samples_per_frame: int) -> None:
        super().__init__()
        self.size, self.hop, self.samples_per_frame = size, hop, samples_per_frame
        analysis, _, _ = _fourier(size)
        self.register_buffer("analysis", analysis, persistent=False)

    def forward(self, source: Tensor, valid_frames: Tensor) -> Tensor:
        """[1, samples] to [1, bins, samples / hop + 1], real rows before imaginary ones."""
        half = self.size // 2
        # Both reflections without |i|: OpenVINO 2026.4 folds the Abs of negative constants to 0.
        index = torch.arange(source.shape[1] + 2 * half)
        index = torch.maximum(index - half, half - index)
        last = valid_frames * self.samples_per_frame - 1
        index = torch.minimum(index, 2 * last - index)
        index = index.clamp(min=0)  # far behind the end: of no meaning
        padded = source.index_select(1, index).unsqueeze(1)  # [1, 1, samples + size]
        return F.conv1d(padded, self.analysis, stride=self.hop)


class Waveform(nn.Module):
    """Inverse STFT of log-magnitudes and phase codes."""

    synthesis: Tensor
    squared: Tensor

    def __init__(
        self, size: int, hop: int, samples_per_frame: int, *, magnitude_limit: float
    ) -> None:
        super().__init__()
        self.size, self.hop, self.magnitude_limit = size, hop, magnitude_limit
        self.per_frame = samples_per_frame // hop
        _, synthesis, squared = _fourier(size)
        self.register_buffer("synthesis", synthesis, persistent=False)
        self.register_buffer("squared", squared, persistent=False)

    def forward(self, x: Tensor, valid_frames: Tensor) -> Tensor:
        """[1, bins, frames] to samples [1, hop (frames - 1)]."""
        log_magnitude, code = x.chunk(2, dim=1)
        magnitude = log_magnitude.exp().clamp(max=self.magnitude_limit)
        # Frames behind the valid ones must not reach into the last valid samples.
        known = torch.arange(x.shape[2]) <= valid_frames * self.per_frame
        mask = known.float().view(1, 1, -1)
        magnitude = magnitude * mask
        angle = code.sin()  # the network codes the phase as asin(angle): -1..1 rad, as trained
        spectrum = torch.cat([magnitude * angle.cos(), magnitude * angle.sin()], dim=1)
        overlapped, weight = (
            F.conv_transpose1d(signal, basis, stride=self.hop, padding=self.size // 2)
            for signal, basis in ((spectrum, self.synthesis), (mask, self.squared))
        )
        return (overlapped / weight.clamp(min=1e-8)).squeeze(1)


def _fourier(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windowed analysis and synthesis [size + 2, 1, size], squared window [1, 1, size]."""
    n, k = (
        torch.arange(count, dtype=torch.float64, device="cpu") for count in (size, size // 2 + 1)
    )
    window = 0.5 - 0.5 * torch.cos(2 * math.pi * n / size)  # periodic Hann
    angle = 2 * math.pi * k[:, None] * n / size
    basis = torch.cat([angle.cos(), -angle.sin()])
    twice = torch.full_like(k, 2.0)  # the other half of the spectrum
    twice[[0, -1]] = 1.0
    inverse = basis * torch.cat([twice, twice])[:, None] / size
    return (
        (basis * window).float()[:, None],
        (inverse * window).float()[:, None],
        (window**2).float()[None, None],
    )
