"""The flow encoder as one graph for any number of tokens: it is a thousandth of the work."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cosyvoice_cpu.checkpoint.config import FlowConfig
from cosyvoice_cpu.export.graph import GraphBuilder
from cosyvoice_cpu.export.weights import StoredWeight, Weight, tensor_weight
from cosyvoice_cpu.networks.reference.flow_encoder import FlowEncoder

_LOOKAHEAD_SLOPE = 0.01
_MIN_NORM = 1e-12


def flow_encoder_weights(network: FlowEncoder) -> dict[str, Weight]:
    """The stored weights."""
    lookahead, speaker = network.pre_lookahead_layer, network.spk_embed_affine_layer
    return {
        "token_embedding": tensor_weight(network.input_embedding.weight),
        "ahead.weight": tensor_weight(lookahead.conv1.weight),
        "ahead.bias": tensor_weight(lookahead.conv1.bias),
        "back.weight": tensor_weight(lookahead.conv2.weight),
        "back.bias": tensor_weight(lookahead.conv2.bias),
        "speaker.weight": tensor_weight(speaker.weight.T),
        "speaker.bias": tensor_weight(speaker.bias),
    }


def build_flow_encoder(config: FlowConfig, stored: Mapping[str, StoredWeight], path: Path) -> None:
    """Write the graph.

    Inputs: `tokens` int64 [N + look-ahead], `known` float32 [N + look-ahead], 0 where a token
    stands for nothing (behind the end) and 1 elsewhere; `embedding` float32 [1, 192] as cached.
    Outputs: `mu` float32 [80, N * frames per token], `speaker` float32 [1, 80].
    """
    graph = GraphBuilder("flow_encoder", stored)
    tokens = graph.input("tokens", np.int64, ["tokens"])
    known = graph.input("known", np.float32, ["tokens"])
    embedding = graph.input("embedding", np.float32, [1, config.spk_embed_dim])

    rows = graph.node("Gather", [graph.weight("token_embedding"), tokens], axis=0)
    rows = graph.mul(rows, graph.node("Unsqueeze", [known, graph.integers(1)]))
    x = graph.node("Transpose", [rows], perm=[1, 0])  # [80, N + look-ahead]
    x = graph.node("Unsqueeze", [x, graph.integers(0)])
    h = graph.node("Conv", [x, graph.weight("ahead.weight"), graph.weight("ahead.bias")])
    h = graph.node("LeakyRelu", [h], alpha=_LOOKAHEAD_SLOPE)
    h = graph.node("Conv", [h, graph.weight("back.weight"), graph.weight("back.bias")], pads=[2, 0])
    now = graph.slice(x, 0, -config.pre_lookahead_len, axis=2)
    mu = graph.node("Unsqueeze", [graph.add(now, h), graph.integers(3)])  # [1, 80, N, 1]
    mu = graph.concat([mu] * config.token_mel_ratio, axis=3)
    graph.output(
        graph.reshape(mu, config.input_size, -1), "mu", np.float32, [config.input_size, "frames"]
    )

    norm = graph.node("ReduceL2", [embedding, graph.integers(1)], keepdims=1)
    norm = graph.node("Max", [norm, graph.constant(np.float32(_MIN_NORM))])
    unit = graph.node("Div", [embedding, norm])
    speaker = graph.linear(unit, "speaker.weight", "speaker.bias")
    graph.output(speaker, "speaker", np.float32, [1, config.output_size])
    graph.save(path)
