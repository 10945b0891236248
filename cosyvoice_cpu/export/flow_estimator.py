"""The flow estimator as static-shape graphs over a ladder of sizes, one weight file for all.

What differs from the torch network, and why:
- the time embedding and all modulations depend on the solver step alone, so they are a table of
  10 steps, read by one index; half a gigabyte of weights of the original is not needed any more;
- LayerNorm takes its scale and shift from that table, query, key and value are one product;
- the attention mask is carried by extra channels of query and key instead of a mask tensor. The
  product of the extra channels is 0 where attention is allowed and hugely negative elsewhere, so
  the mask-free fused kernel does the rest. It needs no [T, T] scores: at 3000 frames that is
  0.1 GB instead of 1.3 GB and a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from cosyvoice_cpu.checkpoint.config import EstimatorConfig
from cosyvoice_cpu.export.graph import MICROSOFT, Dim, GraphBuilder
from cosyvoice_cpu.export.weights import StoredWeight, Weight, joined_weight, tensor_weight
from cosyvoice_cpu.networks.reference.flow_estimator import Block, FlowEstimator

GUIDANCE_BATCH = 2  # row 0 conditioned, row 1 not
_NORM_EPS = 1e-6
_MODULATIONS = 6  # per block: shift, scale, gate of attention; shift, scale, gate of the MLP
# Finite, and far below any score: exp() of it is 0 in float32, and its products stay finite.
_FORBIDDEN = -1e9


def flow_estimator_weights(
    network: FlowEstimator, times: NDArray[np.float32], max_frames: int
) -> dict[str, Weight]:
    """The stored weights for the solver's `times` [steps] and positions up to `max_frames`."""
    embedding = network.input_embed
    weights = {
        "modulation": Weight.of(modulation_table(network, times)),
        "input.weight": tensor_weight(embedding.proj.weight.T),
        "input.bias": tensor_weight(embedding.proj.bias),
        "final.weight": tensor_weight(network.proj_out.weight.T),
        "final.bias": tensor_weight(network.proj_out.bias),
    }
    position = embedding.conv_pos_embed
    for name, conv in (("conv1", position.conv1[0]), ("conv2", position.conv2[0])):
        weights[f"position.{name}.weight"] = tensor_weight(conv.get_parameter("weight"))
        weights[f"position.{name}.bias"] = tensor_weight(conv.get_parameter("bias"))
    for i, block in enumerate(_blocks(network)):
        attention = block.attn
        projections = [attention.to_q, attention.to_k, attention.to_v]
        weights |= {
            f"blocks.{i}.qkv.weight": joined_weight([p.weight.T for p in projections], axis=1),
            f"blocks.{i}.qkv.bias": joined_weight([p.bias for p in projections], axis=0),
        }
        for name, linear in (
            ("out", attention.to_out[0]),
            ("expand", block.ff.ff.get_submodule("0.0")),
            ("contract", block.ff.ff[2]),
        ):
            weights[f"blocks.{i}.{name}.weight"] = tensor_weight(linear.get_parameter("weight").T)
            weights[f"blocks.{i}.{name}.bias"] = tensor_weight(linear.get_parameter("bias"))
    cos, sin = network.rotary_embed(max_frames)
    weights["rotary.cos"], weights["rotary.sin"] = tensor_weight(cos), tensor_weight(sin)
    return weights


def _blocks(network: FlowEstimator) -> Sequence[Block]:
    return cast("Sequence[Block]", network.transformer_blocks)


@torch.inference_mode()
def modulation_table(network: FlowEstimator, times: NDArray[np.float32]) -> NDArray[np.float32]:
    """Modulations [steps, 6 depth + 2, dim], scales as 1 + scale.

    Per block: shift, scale, gate of the attention, shift, scale, gate of the feed-forward; at the
    end scale and shift of the last norm.
    """
    time = F.silu(network.time_embed(torch.tensor(times)))  # [steps, dim]
    dim = network.config.dim
    rows = [
        block.attn_norm.linear(time).unflatten(1, (_MODULATIONS, dim)) for block in _blocks(network)
    ]
    for block_rows in rows:
        block_rows[:, [1, 4]] += 1
    final = network.norm_out.linear(time).unflatten(1, (2, dim))
    final[:, 0] += 1
    table: NDArray[np.float32] = torch.cat([*rows, final], dim=1).numpy()
    return table


def build_flow_estimator(
    config: EstimatorConfig,
    stored: Mapping[str, StoredWeight],
    path: Path,
    *,
    frames: int | None,
    chunked: bool,
) -> None:
    """Write the graph for `frames` mel frames, or for any number if None.

    `chunked` limits attention to a frame's own chunk and all before it (streaming). Inputs: `x`,
    `mu`, `cond` float32 [2, 80, T], `speaker` float32 [2, 80], `step` int64 [], `valid_frames`
    int64 [1]: frames from there on are padding and change nothing before them. Output: `velocity`
    float32 [2, 80, T]; what it holds at padding frames has no meaning.
    """
    graph = GraphBuilder("flow_estimator", stored)
    size: Dim = "frames" if frames is None else frames
    mel = [GUIDANCE_BATCH, config.mel_dim, size]
    x, mu, cond = (graph.input(name, np.float32, mel) for name in ("x", "mu", "cond"))
    speaker = graph.input("speaker", np.float32, [GUIDANCE_BATCH, config.spk_dim])
    step = graph.input("step", np.int64, [])
    valid = graph.input("valid_frames", np.int64, [1])

    length = graph.node("Shape", [x], start=2, end=3)  # folded away in static graphs
    h = _input_embedding(graph, config, (x, cond, mu, speaker), length)  # [2 T, dim]
    table = graph.node("Gather", [graph.weight("modulation"), step], axis=0)
    attention = _Attention(graph, config, length, valid, chunked=chunked)

    def modulation(row: int) -> str:
        value = graph.node("Gather", [table, graph.constant(np.int64(row))], axis=0)
        return value

    def norm(value: str, scale: int, shift: int) -> str:
        normed = graph.node(
            "LayerNormalization",
            [value, modulation(scale), modulation(shift)],
            axis=-1,
            epsilon=_NORM_EPS,
        )
        return normed

    def gemm(value: str, name: str) -> str:
        product = graph.node(
            "Gemm", [value, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")]
        )
        return product

    for i in range(config.depth):
        name, row = f"blocks.{i}", _MODULATIONS * i
        with graph.scope(name):
            qkv = gemm(norm(h, row + 1, row), f"{name}.qkv")  # [2 T, 3 heads dim_head]
            mixed = gemm(attention.mix(qkv), f"{name}.out")
            h = graph.add(h, graph.mul(mixed, modulation(row + 2)))
            inner = graph.node(
                "MatMul", [norm(h, row + 4, row + 3), graph.weight(f"{name}.expand.weight")]
            )
            inner = graph.node(  # tanh approximation, bias included
                "FastGelu", [inner, graph.weight(f"{name}.expand.bias")], domain=MICROSOFT
            )
            h = graph.add(h, graph.mul(gemm(inner, f"{name}.contract"), modulation(row + 5)))
    row = _MODULATIONS * config.depth
    velocity = graph.reshape(
        gemm(norm(h, row, row + 1), "final"), GUIDANCE_BATCH, -1, config.mel_dim
    )
    velocity = graph.node("Transpose", [velocity], perm=[0, 2, 1])
    graph.output(velocity, "velocity", np.float32, mel)
    graph.save(path)


def _input_embedding(
    graph: GraphBuilder, config: EstimatorConfig, inputs: tuple[str, str, str, str], length: str
) -> str:
    """Joined inputs projected, plus two causal grouped convolutions for position: [2 T, dim]."""
    x, cond, mu, speaker = inputs
    with graph.scope("input"):
        shape = graph.concat([graph.integers(GUIDANCE_BATCH, config.spk_dim), length], axis=0)
        spread = graph.node(
            "Expand", [graph.node("Unsqueeze", [speaker, graph.integers(2)]), shape]
        )
        joined = graph.concat([x, cond, mu, spread], axis=1)  # [2, 320, T]
        joined = graph.node("Transpose", [joined], perm=[0, 2, 1])
        h = graph.linear(joined, "input.weight", "input.bias")  # [2, T, dim]
        p = graph.node("Transpose", [h], perm=[0, 2, 1])
        for name in ("position.conv1", "position.conv2"):
            kernel = 31
            p = graph.node(
                "Conv",
                [p, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")],
                kernel_shape=[kernel],
                pads=[kernel - 1, 0],
                group=16,
            )
            p = graph.node("Mish", [p])
        h = graph.add(h, graph.node("Transpose", [p], perm=[0, 2, 1]))
        return graph.reshape(h, -1, config.dim)


class _Attention:
    """Attention over all frames with the mask in extra channels of query and key."""

    def __init__(
        self,
        graph: GraphBuilder,
        config: EstimatorConfig,
        length: str,
        valid: str,
        *,
        chunked: bool,
    ) -> None:
        self._graph, self._config = graph, config
        with graph.scope("mask"):
            zero, one = graph.constant(np.int64(0)), graph.constant(np.int64(1))
            scalar = graph.node("Squeeze", [length])
            position = graph.node("Range", [zero, scalar, one])
            padding = graph.node("GreaterOrEqual", [position, valid])
            column = graph.integers(1)
            if chunked:
                chunk = graph.node(
                    "Div", [position, graph.constant(np.int64(config.static_chunk_size))]
                )
                last = graph.node(
                    "Div",
                    [
                        graph.node("Sub", [scalar, one]),
                        graph.constant(np.int64(config.static_chunk_size)),
                    ],
                )
                chunks = graph.node("Range", [zero, graph.add(last, one), one])
                own = graph.node("Unsqueeze", [chunk, column])  # [T, 1]
                query = graph.node("Equal", [own, chunks])  # one-hot [T, chunks]
                key = graph.node(
                    "Or",
                    [
                        graph.node("Greater", [own, chunks]),
                        graph.node("Unsqueeze", [padding, column]),
                    ],
                )
            else:
                key = graph.node("Unsqueeze", [padding, column])  # [T, 1]
                query = graph.node("Or", [key, graph.node("Not", [key])])
            off, on = graph.constant(np.float32(0)), graph.constant(np.float32(1))
            forbidden = graph.constant(np.float32(_FORBIDDEN))
            self._query_mask = self._spread(graph.node("Where", [query, on, off]), length)
            self._key_mask = self._spread(graph.node("Where", [key, forbidden, off]), length)
            self._cos, self._sin = graph.weight("rotary.cos"), graph.weight("rotary.sin")
            self._first_position = graph.integers(0)

    def _spread(self, mask: str, length: str) -> str:
        """[T, E] to [2, T, heads, E]."""
        graph, heads = self._graph, self._config.heads
        width = graph.node("Shape", [mask], start=1, end=2)
        shape = graph.concat(
            [graph.integers(GUIDANCE_BATCH), length, graph.integers(heads), width], axis=0
        )
        expanded = graph.node(
            "Expand", [graph.node("Unsqueeze", [mask, graph.integers(0, 2)]), shape]
        )
        return expanded

    def mix(self, qkv: str) -> str:
        """[2 T, 3 heads dim_head] to the attended values [2 T, heads dim_head]."""
        graph, config = self._graph, self._config
        query, key, value = graph.nodes("Split", [qkv], 3, axis=1, num_outputs=3)
        width = config.heads * config.dim_head
        mixed = graph.node(
            "MultiHeadAttention",
            [
                self._masked(query, self._query_mask),
                self._masked(key, self._key_mask),
                graph.reshape(value, GUIDANCE_BATCH, -1, width),
            ],
            domain=MICROSOFT,
            num_heads=config.heads,
            scale=float(config.dim_head**-0.5),
        )
        return graph.reshape(mixed, -1, width)

    def _masked(self, x: str, mask: str) -> str:
        """Rotate the first head, then append the mask's channels to every head."""
        graph, config = self._graph, self._config
        x = graph.reshape(x, GUIDANCE_BATCH, -1, config.heads, config.dim_head)
        first = graph.reshape(graph.slice(x, 0, 1, axis=2), GUIDANCE_BATCH, -1, config.dim_head)
        turned = graph.node(
            "RotaryEmbedding",
            [first, self._first_position, self._cos, self._sin],
            domain=MICROSOFT,
            interleaved=1,
            num_heads=1,
        )
        turned = graph.reshape(turned, GUIDANCE_BATCH, -1, 1, config.dim_head)
        heads = turned
        if config.heads > 1:
            rest = graph.slice(x, 1, config.heads, axis=2)
            heads = graph.concat([turned, rest], axis=2)
        return graph.reshape(graph.concat([heads, mask], axis=3), 0, 0, -1)
