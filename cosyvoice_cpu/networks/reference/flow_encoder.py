"""Flow encoder: what conditions the flow estimator, from speech tokens, prompt mel and speaker.

No attention here: a token table, two convolutions that look three tokens (120 ms) ahead, and each
token repeated for its mel frames. Source: CosyVoice cosyvoice/flow/flow.py
(CausalMaskedDiffWithDiT.inference), cosyvoice/transformer/upsample_encoder.py (PreLookaheadLayer).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import FlowConfig

LOOKAHEAD_SLOPE = 0.01  # of the leaky ReLU, torch's default
BACK_KERNEL = 3


class PreLookaheadLayer(nn.Module):
    """A convolution into the future and one into the past, around a residual.

    Shapes: x [B, N, C], context [B, tokens ahead, C] -> [B, N, C].
    Source: CosyVoice cosyvoice/transformer/upsample_encoder.py, PreLookaheadLayer.
    """

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        width, inner = config.input_size, config.pre_lookahead_channels
        self.conv1 = nn.Conv1d(width, inner, kernel_size=config.pre_lookahead_len + 1)
        self.conv2 = nn.Conv1d(inner, width, kernel_size=BACK_KERNEL)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        h = torch.cat([x, context], dim=1).transpose(1, 2)  # [B, C, N + tokens ahead]
        h = F.leaky_relu(self.conv1(h), LOOKAHEAD_SLOPE)  # [B, inner, N]
        h = self.conv2(F.pad(h, (BACK_KERNEL - 1, 0)))  # [B, C, N]
        out: Tensor = x + h.transpose(1, 2)
        return out


class FlowEncoder(nn.Module):
    """Tokens to `mu`, speaker embedding to `speaker`. N tokens, M mel bins (80)."""

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.input_embedding = nn.Embedding(config.vocab_size, config.input_size)
        self.pre_lookahead_layer = PreLookaheadLayer(config)
        self.spk_embed_affine_layer = nn.Linear(config.spk_embed_dim, config.output_size)

    def forward(
        self, tokens: Tensor, *, finalize: bool = True, mask: Tensor | None = None
    ) -> Tensor:
        """`mu` [B, M, N * frames per token] from ids [B, N]; negative ids count as 0.

        Without `finalize` the last `pre_lookahead_len` tokens (3) are context only and yield no
        frames; with it zeros stand for what follows. `mask` [B, N] marks the tokens of a
        right-padded batch (True = token), so that padding acts like those zeros.
        """
        x = self.input_embedding(tokens.clamp(min=0))  # [B, N, M]
        if mask is not None:
            x = x * mask.unsqueeze(2).to(x.dtype)
        ahead = self.config.pre_lookahead_len
        if finalize:
            context = x.new_zeros(x.shape[0], ahead, x.shape[2])
        else:
            x, context = x[:, :-ahead], x[:, -ahead:]
        h: Tensor = self.pre_lookahead_layer(x, context)
        return h.repeat_interleave(self.config.token_mel_ratio, dim=1).transpose(1, 2)

    def speaker(self, embedding: Tensor) -> Tensor:
        """`speaker` [B, M] from speaker embeddings [B, 192] of any length."""
        out: Tensor = self.spk_embed_affine_layer(F.normalize(embedding, dim=1))
        return out


def prompt_condition(prompt_mel: Tensor, frames: int) -> Tensor:
    """`cond` [B, M, frames]: the prompt's log-mel [B, prompt frames, M], then zeros."""
    return F.pad(prompt_mel.transpose(1, 2), (0, frames - prompt_mel.shape[1]))
