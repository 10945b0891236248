"""The flow encoder as torch's FX can trace it; modules are named as the bundle's weights.

Source: as `networks.flow_encoder`.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.quantization.fx.layers import GraphFacts, StoredLayers, look_back

_LOOKAHEAD_SLOPE = 0.01


class TraceableFlowEncoder(nn.Module):
    """Tokens and speaker embedding to `mu` and `speaker`, with the graph's inputs."""

    opaque: ClassVar[tuple[type[nn.Module], ...]] = ()
    token_embedding: Tensor

    def __init__(self, stored: StoredLayers, facts: GraphFacts) -> None:
        super().__init__()
        self.register_buffer("token_embedding", stored.tensor("token_embedding"))
        self.ahead = stored.convolution("ahead", facts)
        self.back = stored.convolution("back", facts)
        self.speaker = stored.linear("speaker")
        self.lookahead = stored.weights["ahead.weight"].shape[2] - 1  # tokens
        self.ratio = facts.inputs("Concat")  # mel frames per token

    def forward(self, tokens: Tensor, known: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """`mu` [80, N ratio] and `speaker` [1, 80].

        tokens int64 and known float32 [N + look-ahead], embedding [1, 192].
        """
        rows = F.embedding(tokens, self.token_embedding) * known.unsqueeze(1)
        x = rows.transpose(0, 1).unsqueeze(0)  # [1, 80, N + look-ahead]
        h = look_back(self.back, F.leaky_relu(self.ahead(x), _LOOKAHEAD_SLOPE))
        mu = (x[:, :, : -self.lookahead] + h)[0].repeat_interleave(self.ratio, dim=1)
        return mu, self.speaker(F.normalize(embedding, dim=1))
