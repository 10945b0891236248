"""The flow encoder as it runs: prompt and target in one row, look-ahead as zeros or tokens.

Source: as the reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import FlowConfig
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import flow_encoder as reference


class FlowEncoder(nn.Module):
    """Tokens to `mu`, speaker embedding to `speaker`."""

    config_type = FlowConfig
    leaves: ClassVar[tuple[type[nn.Module], ...]] = ()
    tables: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        table = torch.empty(config.vocab_size, config.input_size)
        self.token_embedding = nn.Parameter(table, requires_grad=False)
        width, inner = config.input_size, config.pre_lookahead_channels
        self.ahead = nn.Conv1d(width, inner, config.pre_lookahead_len + 1)
        self.back = nn.Conv1d(inner, width, reference.BACK_KERNEL)
        self.speaker = nn.Linear(config.spk_embed_dim, config.output_size)

    def forward(self, tokens: Tensor, known: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` [80, N * frames per token] and `speaker` [1, 80].

        tokens int64 [N + look-ahead]; known float32 [N + look-ahead], 0 where a token stands for
        nothing (behind the end) and 1 elsewhere; embedding [1, 192] of any length.
        """
        rows = F.embedding(tokens, self.token_embedding) * known.unsqueeze(1)
        x = rows.transpose(0, 1).unsqueeze(0)  # [1, 80, N + look-ahead]
        h = F.leaky_relu(self.ahead(x), reference.LOOKAHEAD_SLOPE)
        h = self.back(F.pad(h, (reference.BACK_KERNEL - 1, 0)))
        mu = x[:, :, : -self.config.pre_lookahead_len] + h  # [1, 80, N]
        frames = torch.stack([mu[0]] * self.config.token_mel_ratio, dim=2)
        return frames.flatten(1), self.speaker(F.normalize(embedding, dim=1))

    def graph(self, variant: str) -> nn.Module:
        """The module of the only graph."""
        return {"flow_encoder": self}[variant]

    @classmethod
    def blank(cls, config: FlowConfig, tensors: Mapping[str, Tensor]) -> FlowEncoder:
        """Without values, on the meta device."""
        with torch.device("meta"):
            return cls(config).eval()

    @classmethod
    def from_reference(cls, network: reference.FlowEncoder) -> FlowEncoder:
        """On the tensors of `network`."""
        tensors = {
            "token_embedding": network.input_embedding.weight.detach(),
            **layer_tensors("ahead", network.pre_lookahead_layer.conv1),
            **layer_tensors("back", network.pre_lookahead_layer.conv2),
            **layer_tensors("speaker", network.spk_embed_affine_layer),
        }
        own = cls.blank(network.config, tensors)
        own.load_state_dict(tensors, assign=True)
        return own
