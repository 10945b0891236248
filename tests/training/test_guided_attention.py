"""Where guided heads may look, and the loss on where they do."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM, rotary_table, rotate
from training.guided_attention import (
    HEADS,
    LAYERS,
    AttentionGuide,
    allowed_pieces,
)
from training.sizes import speech_lm_config

CONFIG = speech_lm_config(40)


def test_every_token_may_look_at_some_piece_for_every_head():
    characters = np.linspace(0, 20, 41, dtype=np.float32)
    starts = np.array([0, 3, 9, 15], np.float32)
    ends = np.array([3, 9, 15, 20], np.float32)
    now, ahead = allowed_pieces(starts, ends, characters)
    assert now.any(1).all() and ahead.any(1).all()
    assert now[0].tolist() == [True, False, False, False]
    assert ahead[0].tolist() == [True, True, False, False]
    assert now[-1].tolist() == ahead[-1].tolist() == [False, False, False, True]


def test_tokens_without_a_character_may_look_nowhere():
    unknown = np.full(3, np.nan, np.float32)
    for mask in allowed_pieces(np.zeros(1, np.float32), np.ones(1, np.float32), unknown):
        assert not mask.any()


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return SpeechLM(CONFIG)


def _attention(layer, x, head):
    """Causal attention [B, L, L] of a query head, by the definition."""
    size, length = layer.head_dim, x.shape[1]
    rotary = rotary_table(CONFIG, 0, length, x.device)
    queries = layer.q_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
    keys = layer.k_proj(x).unflatten(-1, (-1, size)).transpose(1, 2)
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
    scores = rotate(queries, rotary) @ rotate(keys, rotary).transpose(2, 3) / size**0.5
    return torch.softmax(scores + torch.full((length, length), -torch.inf).triu(1), -1)[:, head]


def test_the_guide_scores_the_very_attention_of_the_network(network):
    length = 7
    allowed = torch.rand(len(HEADS), 2, length, length) < 0.5
    allowed &= torch.ones(length, length, dtype=torch.bool).tril()
    inputs = {}
    layers = [network.qwen2.layers[index].self_attn for index in LAYERS]
    for layer in layers:
        layer.register_forward_pre_hook(lambda layer, given: inputs.update({layer: given[0]}))
    guide = AttentionGuide(network)
    with guide.watching():
        network(torch.randn(2, length, CONFIG.hidden_size))
    expected = []
    for layer in layers:
        for (head, _, _), mask in zip(HEADS, allowed, strict=True):
            resting = (_attention(layer, inputs[layer], head) * mask).sum(-1)
            expected.append(-resting[mask.any(-1)].log().mean())
        layer._forward_pre_hooks.clear()
    assert torch.allclose(guide.loss(list(allowed)), torch.stack(expected).mean(), atol=1e-5)


def test_queries_without_an_allowed_key_do_not_count(network):
    nothing = torch.zeros(1, 3, 3, dtype=torch.bool)
    guide = AttentionGuide(network)
    with guide.watching():
        network(torch.randn(1, 3, CONFIG.hidden_size))
    assert guide.loss([nothing] * len(HEADS)) == 0


def test_watching_leaves_no_hook_behind(network):
    guide = AttentionGuide(network)
    with pytest.raises(ZeroDivisionError), guide.watching():
        raise ZeroDivisionError
    assert not any(layer.self_attn._forward_pre_hooks for layer in network.qwen2.layers)
