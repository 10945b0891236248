"""Heads of the speech LM that are shown where in the text the speech is.

Left alone, a small decoder needs most of its training to find out that speech follows the text from
left to right, and it still loses its place in long texts. The generators' word times say which
character every speech token belongs to, so two heads in two layers are pulled there: one to the
pieces that are being said, one to those that come next. Idea: guided attention (arXiv 1710.08969),
here with known times instead of a diagonal.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosyvoice_cpu.networks.reference.speech_lm import Attention, SpeechLM, rotate

LAYERS = (2, 4)
# Query head, and the characters around the spoken one that its attention may rest on.
HEADS = ((0, -1.5, 1.5), (2, 2.0, 7.0))


class AttentionGuide:
    """Captures what enters the guided layers during a forward pass and scores their attention."""

    def __init__(self, network: SpeechLM) -> None:
        attentions = [module for module in network.modules() if isinstance(module, Attention)]
        self._layers = [attentions[index] for index in LAYERS]
        self._seen: list[tuple[Attention, Tensor, tuple[Tensor, Tensor]]] = []

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Forward passes inside are captured for `loss`."""
        self._seen.clear()
        hooks = [layer.register_forward_pre_hook(self._capture) for layer in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _capture(self, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        assert isinstance(layer, Attention)
        self._seen.append((layer, inputs[0], inputs[1]))

    def loss(self, allowed: Sequence[Tensor]) -> Tensor:
        """Mean of -log of the attention that rests on the allowed positions.

        `allowed` has one boolean [B, L, L] (query, key) per entry of `HEADS`; queries without an
        allowed key do not count.
        """
        losses = []
        for layer, x, rotary in self._seen:
            for (head, _, _), mask in zip(HEADS, allowed, strict=True):
                scores = _scores(layer, x, rotary, head)
                counts = mask.any(-1)
                resting = scores.masked_fill(~mask, -1e4).logsumexp(-1) - scores.logsumexp(-1)
                losses.append(-(resting * counts).sum() / counts.sum().clamp(min=1))
        return torch.stack(losses).mean()


def _scores(layer: Attention, x: Tensor, rotary: tuple[Tensor, Tensor], head: int) -> Tensor:
    """Causal attention scores [B, L, L] of one query head, before softmax."""
    size = layer.head_dim
    query_heads = layer.q_proj.out_features // size
    key_head = head * layer.k_proj.out_features // size // query_heads
    projected = []
    for projection, number in ((layer.q_proj, head), (layer.k_proj, key_head)):
        rows = slice(number * size, (number + 1) * size)
        part = nn.functional.linear(x, projection.weight[rows], projection.bias[rows])
        projected.append(rotate(part[:, None], rotary)[:, 0].float())
    q, k = projected
    scores = q @ k.transpose(1, 2) * size**-0.5
    future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    causal: Tensor = scores.masked_fill(future, -1e4)
    return causal


def allowed_pieces(
    starts: NDArray[np.float32], ends: NDArray[np.float32], characters: NDArray[np.float32]
) -> list[NDArray[np.bool_]]:
    """For every head, which text pieces [tokens, pieces] a token that says `characters` [tokens]
    may look at; a piece covers the characters from `starts` to `ends` [pieces].

    Near the end of the text the last piece stands in for what would follow it.
    """
    masks = []
    last = ends.max(initial=0.0) - 0.5
    for _, low, high in HEADS:
        first = np.minimum(characters + low, last)[:, None]
        stop = np.maximum(characters + high, 0.5)[:, None]
        masks.append((starts < stop) & (ends > first))  # False where NaN
    return masks
