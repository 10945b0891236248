"""The speech LM as one graph for prefill and decode.

Attention is ONNX Runtime's GroupQueryAttention: past and present may be one buffer, so a decoded
token writes one row of the KV cache and copies nothing. The same graph reads a whole prompt
(prefill) or one token (decode); the weights are held once. Embedding tables stay outside of the
graph: the run time maps them and touches only the rows that are asked for.

    inputs_embeds [1, S, hidden] ─> layers x (RMSNorm, GQA + rotary, RMSNorm, SwiGLU) ─> RMSNorm
        ─> rows of interest ─> head ─> logits [R, rows]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cosyvoice_cpu.checkpoint.config import SpeechLMConfig
from cosyvoice_cpu.export.graph import MICROSOFT, Dim, GraphBuilder
from cosyvoice_cpu.export.weights import StoredWeight


def build_speech_lm(config: SpeechLMConfig, stored: Mapping[str, StoredWeight], path: Path) -> None:
    """Write the graph.

    Inputs: `inputs_embeds` float32 [1, S, hidden]; `rows` int64 [R], the positions whose logits
    are wanted; `last_position` int32 [1], index of the last position once these are read;
    `total_length` int32 [1], that index plus one; `past_key_i`, `past_value_i` float32
    [1, kv_heads, L, head_dim]. Outputs: `logits` float32 [R, table rows]; `present_key_i`,
    `present_value_i`, which may be bound to the same memory as the past.
    """
    graph = GraphBuilder("speech_lm", stored)
    hidden = config.hidden_size
    kv_shape: list[Dim] = [1, config.num_kv_heads, "cache", config.head_dim]
    x = graph.input("inputs_embeds", np.float32, [1, "sequence", hidden])
    rows = graph.input("rows", np.int64, ["rows"])
    last = graph.input("last_position", np.int32, [1])
    total = graph.input("total_length", np.int32, [1])
    y = _rms_norm(graph, x, "layers.0.attention_norm.weight", config.rms_norm_eps)
    for i in range(config.num_layers):
        name = f"layers.{i}"
        following = f"layers.{i + 1}.attention_norm" if i + 1 < config.num_layers else "norm"
        past = [graph.input(f"past_{part}_{i}", np.float32, kv_shape) for part in ("key", "value")]
        with graph.scope(name):
            qkv = graph.linear(y, f"{name}.qkv.weight", f"{name}.qkv.bias")
            attended, *_ = graph.nodes(
                "GroupQueryAttention",
                [
                    *(qkv, "", "", *past, last, total),
                    *(graph.weight("rotary.cos"), graph.weight("rotary.sin")),
                ],
                [f"{name}/attention", f"present_key_{i}", f"present_value_{i}"],
                domain=MICROSOFT,
                num_heads=config.num_heads,
                kv_num_heads=config.num_kv_heads,
                do_rotary=1,
                rotary_interleaved=0,
            )
            for part in ("key", "value"):
                graph.direct_output(f"present_{part}_{i}", np.float32, kv_shape)
            y, _, _, x = graph.nodes(
                "SkipSimplifiedLayerNormalization",
                [
                    x,
                    graph.linear(attended, f"{name}.out.weight"),
                    graph.weight(f"{name}.mlp_norm.weight"),
                ],
                4,
                domain=MICROSOFT,
                epsilon=config.rms_norm_eps,
            )
            gate, up = graph.nodes(
                "Split",
                [graph.linear(y, f"{name}.gate_up.weight")],
                2,
                axis=-1,
                num_outputs=2,
            )
            silu = graph.node("QuickGelu", [gate], domain=MICROSOFT, alpha=1.0)
            down = graph.linear(graph.mul(silu, up), f"{name}.down.weight")
            y, _, _, x = graph.nodes(
                "SkipSimplifiedLayerNormalization",
                [x, down, graph.weight(f"{following}.weight")],
                4,
                domain=MICROSOFT,
                epsilon=config.rms_norm_eps,
            )
    wanted = graph.node("Gather", [graph.reshape(y, -1, hidden), rows], axis=0)
    logits = graph.linear(wanted, "head.weight")
    graph.output(logits, "logits", np.float32, ["rows", config.speech_table_rows])
    graph.save(path)


def _rms_norm(graph: GraphBuilder, x: str, weight: str, epsilon: float) -> str:
    """x / sqrt(mean(x^2) + epsilon) * weight; the later norms are fused with the residual sum."""
    axes = graph.integers(-1)
    mean = graph.node("ReduceMean", [graph.mul(x, x), axes], keepdims=1)
    root = graph.node("Sqrt", [graph.add(mean, graph.constant(np.float32(epsilon)))])
    return graph.mul(graph.node("Div", [x, root]), graph.weight(weight))
