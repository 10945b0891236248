"""The trained speech tokenizer as `speech_tokenizer_v3.onnx`, with the official signature.

`feats` float32 [1, 128, T] and `feats_length` int32 [1] to `indices` int32 [1, N], N = ceil(ceil(T
/ 2) / 2). Quantizer, silent ids and their cycle are part of the graph. Large weights are stored as
int8 with a scale per output channel, a quarter of float32's size; the graph computes in float32.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper

from training.graph import Graph
from training.sizes import LOG_MEL_BINS
from training.speech_tokenizer import LEVELS, ConvBlock, SpeechTokenizer
from training.token_ids import SILENT_IDS, IdTable


def save_tokenizer(network: SpeechTokenizer, table: IdTable, path: Path) -> None:
    """Write the tokenizer's encoder, quantizer and id table to `path`."""
    g = Graph()
    length = g.add("Cast", "feats_length", to=TensorProto.INT64)
    zero, time_axis = g.constant(np.array([0])), g.constant(np.array([2]))
    x = g.add("Slice", "feats", zero, length, time_axis)
    x = g.gelu(g.conv(g.gelu(g.conv(x, network.first)), network.second))
    x = g.swap(x)
    for block in network.encoder:
        assert isinstance(block, ConvBlock)
        x = _block(g, x, block)
    soft = g.add("Tanh", g.linear(g.norm(x, network.norm), network.down))
    digits = g.add("Add", g.add("Round", soft), g.constant(np.float32(1)))  # 0, 1, 2
    powers = (LEVELS ** np.arange(network.down.out_features)).astype(np.float32)[:, None]
    exact = g.add("MatMul", digits, g.constant(powers))  # [1, N, 1], integers below 2^24
    codes = g.add(
        "Squeeze", g.add("Cast", exact, to=TensorProto.INT64), g.constant(np.array([0, 2]))
    )
    silent = g.add("Gather", g.constant(table.silent), codes)  # [N]
    spoken_ids = g.add("Gather", g.constant(table.ids), codes)
    ids = g.add("Where", silent, _silent_ids(g, silent, codes), spoken_ids)
    narrow = g.add("Cast", ids, to=TensorProto.INT32)
    g.add("Unsqueeze", narrow, g.constant(np.array([0])), name="indices")
    _save(g, path)


def _block(g: Graph, x: str, block: ConvBlock) -> str:
    h = g.swap(g.conv(g.swap(x), block.depthwise))
    h = g.gelu(g.linear(g.norm(h, block.norm), block.wide))
    return g.add("Add", x, g.linear(h, block.narrow))


def _silent_ids(g: Graph, silent: str, codes: str) -> str:
    """For each token the id that it has if it is silent: by its place in the silence, [N]."""
    count = g.add("Squeeze", g.add("Shape", codes), g.constant(np.array([0])))
    index = g.add("Range", g.constant(np.int64(0)), count, g.constant(np.int64(1)))  # [N]
    before = g.constant(np.int64(-1))
    spoken_at = g.add("Where", silent, before, index)  # [N]
    row = g.add("Unsqueeze", index, g.constant(np.array([1])))  # [N, 1]
    column = g.add("Unsqueeze", index, g.constant(np.array([0])))  # [1, N]
    seen = g.add("Where", g.add("LessOrEqual", column, row), spoken_at, before)  # [N, N]
    last = g.add("ReduceMax", seen, axes=[1], keepdims=0)  # the last spoken token up to here
    place = g.add("Sub", g.add("Sub", index, last), g.constant(np.int64(1)))
    turn = g.add("Mod", place, g.constant(np.int64(len(SILENT_IDS))))
    # A spoken token has place -1; its result is not used, and Mod keeps it inside the list.
    return g.add("Gather", g.constant(np.array(SILENT_IDS)), turn)


def _save(g: Graph, path: Path) -> None:
    inputs = [
        helper.make_tensor_value_info("feats", TensorProto.FLOAT, [1, LOG_MEL_BINS, "T"]),
        helper.make_tensor_value_info("feats_length", TensorProto.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("indices", TensorProto.INT32, [1, "N"])]
    g.save(path, "speech_tokenizer", inputs, outputs)
