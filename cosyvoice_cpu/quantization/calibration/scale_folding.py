"""Scale folding: scales of a layer's input channels that cost nothing at run time.

Dividing channel k of a layer's input by s[k] and multiplying row k of its weight by s[k] changes
nothing in float. The division is free where something before it is a stored factor of that channel
and nothing in between is curved; `FOLD_RULES` says where that is. What enters the flow's `contract`
comes out of a GELU, so its channels stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT


@dataclass(frozen=True)
class FoldRule:
    """One layer of each block, and what is stored before it; `{i}` is the number of the block."""

    layer: str
    into: str  # name of the norm or layer before it; of the table for "modulation"
    # norm        its weight, of an RMSNorm
    # modulation  rows of the table [steps, rows, channels]: scale and shift of a LayerNorm
    # values      the value columns of a joined projection (query, key, value): attention mixes rows
    #             alone; heads that share a value share a scale
    # up          the second half of a joined projection (gate, up): a factor of SiLU(gate) * up
    how: Literal["norm", "modulation", "values", "up"]
    rows: tuple[
        int, ...
    ] = ()  # of the modulation table, from the block's first; from 0 without {i}


_ATTENTION = ("GroupQueryAttention", "MultiHeadAttention")
_ROWS_OF_A_BLOCK = 6  # shift, scale, gate of attention; shift, scale, gate of the feed-forward part

FOLD_RULES: dict[ComponentName, tuple[FoldRule, ...]] = {
    "flow_estimator": (
        FoldRule("blocks.{i}.qkv", "modulation", "modulation", rows=(0, 1)),
        FoldRule("blocks.{i}.out", "blocks.{i}.qkv", "values"),
        FoldRule("blocks.{i}.expand", "modulation", "modulation", rows=(3, 4)),
        FoldRule("final", "modulation", "modulation", rows=(0, 1)),  # behind the last block's
    ),
    "speech_lm": (
        FoldRule("layers.{i}.qkv", "layers.{i}.attention_norm", "norm"),
        FoldRule("layers.{i}.out", "layers.{i}.qkv", "values"),
        FoldRule("layers.{i}.gate_up", "layers.{i}.mlp_norm", "norm"),
        FoldRule("layers.{i}.down", "layers.{i}.gate_up", "up"),
        FoldRule("head", "norm", "norm"),
    ),
}


@dataclass(frozen=True)
class ChannelSlice:
    """Channels `start` to the last of a stored tensor's last axis, of one row if it is given."""

    tensor: str
    start: int = 0
    row: int | None = None  # of the modulation table [steps, rows, channels]

    @property
    def index(self) -> tuple[object, ...]:
        """What picks it from the tensor's array."""
        channels = slice(self.start, None)
        return (..., channels) if self.row is None else (slice(None), self.row, channels)


@dataclass(frozen=True, eq=False)
class ScaleFold:
    """`layer`'s rows are multiplied, `divided` are divided by the same scales."""

    layer: str
    divided: tuple[ChannelSlice, ...]
    scale_of: NDArray[np.int64]  # [K]: which scale each input channel of the layer has

    @property
    def scales(self) -> int:
        """How many there are; fewer than channels where heads share values."""
        return int(self.scale_of.max()) + 1


@dataclass(frozen=True, eq=False)
class Smoothing:
    """The folds of a component and the scales that calibration chose for them."""

    folds: Sequence[ScaleFold]
    scales: Mapping[str, Floats]  # by layer, positive; a layer that stays as it is has none
    alphas: Mapping[str, float]  # of every layer that was looked at; 0 for those

    def applied(self, floats: Mapping[str, Weight]) -> dict[str, Weight]:
        """The weights with all scales folded into them, computed when one is loaded."""
        return fold_scales(floats, self.folds, self.scales)

    def around(self, layer: str) -> Smoothing:
        """What touches the weight of `layer`, so that it becomes what `applied` makes of it."""
        touching = [
            fold
            for fold in self.folds
            if fold.layer == layer or any(p.tensor == layer + WEIGHT for p in fold.divided)
        ]
        return Smoothing(touching, self.scales, self.alphas)

    def __str__(self) -> str:
        """As in "smoothed 40 of 66 layers: alpha 0.5 (30), 0.6 (10)"."""
        counts = Counter(value for value in self.alphas.values() if value)
        often = ", ".join(f"{value:g} ({number})" for value, number in counts.most_common())
        return f"smoothed {counts.total()} of {len(self.alphas)} layers: alpha {often or 0}"


def smoothing_arrays(smoothing: Smoothing) -> dict[str, NDArray[np.generic]]:
    """As plain arrays, for the measurement cache."""
    alphas = {f"{layer}.alpha": value for layer, value in smoothing.alphas.items()}
    kept = {key: np.array(value, np.float32) for key, value in alphas.items()}
    return {**kept, **{f"{layer}.scale": scale for layer, scale in smoothing.scales.items()}}


def smoothing_of(
    folds: Sequence[ScaleFold], arrays: Mapping[str, NDArray[np.generic]]
) -> Smoothing:
    """What `smoothing_arrays` gave."""

    def those(end: str) -> dict[str, Floats]:
        return {
            key.removesuffix(end): np.asarray(array, np.float32)
            for key, array in arrays.items()
            if key.endswith(end)
        }

    alphas = {layer: round(value.item(), 3) for layer, value in those(".alpha").items()}
    return Smoothing(folds, those(".scale"), alphas)


def folds_of(name: ComponentName, graph: Path, floats: Mapping[str, Weight]) -> list[ScaleFold]:
    """Every fold of a component whose float graph is at `graph`; none for other components."""
    rules = FOLD_RULES.get(name)
    if not rules:
        return []
    blocks = sum(rules[0].layer.format(i=i) + WEIGHT in floats for i in range(len(floats)))
    heads = _heads(graph)
    folds = []
    for rule in rules:
        for i in range(blocks) if "{i}" in rule.layer else [blocks]:
            layer = rule.layer.format(i=i)
            width = floats[layer + WEIGHT].shape[0]
            into = floats.get(rule.into.format(i=i) + WEIGHT)
            channels = np.arange(width)
            if rule.how == "values" and into:
                channels = _shared_values(width, (into.shape[1] - width) // 2, heads)
            divided = _divided(rule, i, int(channels.max()) + 1, floats)
            folds.append(ScaleFold(layer, tuple(divided), channels))
    return folds


def _divided(
    rule: FoldRule, i: int, scales: int, floats: Mapping[str, Weight]
) -> Iterator[ChannelSlice]:
    """Where the division by `scales` numbers goes: the last so many channels of what is stored."""
    into = rule.into.format(i=i)
    if rule.how == "modulation":
        for row in rule.rows:
            yield ChannelSlice(into, row=_ROWS_OF_A_BLOCK * i + row)
        return
    for tensor in (into + WEIGHT, into + ".bias"):
        if tensor in floats:
            yield ChannelSlice(tensor, start=floats[tensor].shape[-1] - scales)


def _shared_values(width: int, values: int, heads: int) -> NDArray[np.int64]:
    """Of each of `width` channels behind attention the one of `values` that it mixes."""
    head = width // heads
    owner = np.arange(heads) // (width // values)
    return (owner[:, None] * head + np.arange(head)).reshape(-1)


def _heads(graph: Path) -> int:
    """Heads of the queries, as the attention of the graph has them."""
    model = onnx.load(str(graph), load_external_data=False)
    attention = next(node for node in model.graph.node if node.op_type in _ATTENTION)
    return next(int(entry.i) for entry in attention.attribute if entry.name == "num_heads")


def fold_scales(
    floats: Mapping[str, Weight], folds: Sequence[ScaleFold], scales: Mapping[str, Floats]
) -> dict[str, Weight]:
    """The weights with the scales of each fold in them; `scales` by layer, positive.

    Computed when a weight is loaded; what has no scale is as it was.
    """
    factors: dict[str, list[tuple[tuple[object, ...], Floats]]] = {}
    for fold in folds:
        if fold.layer not in scales:
            continue
        scale = scales[fold.layer]
        rows = scale[fold.scale_of][:, None]
        factors.setdefault(fold.layer + WEIGHT, []).append(((...,), rows))
        for part in fold.divided:
            factors.setdefault(part.tensor, []).append((part.index, np.float32(1) / scale))
    result = dict(floats)
    for tensor, changes in factors.items():
        weight = floats[tensor]
        result[tensor] = Weight(weight.shape, weight.dtype, partial(_multiplied, weight, changes))
    return result


def _multiplied(
    weight: Weight, changes: Sequence[tuple[tuple[object, ...], Floats]]
) -> NDArray[np.generic]:
    array = np.array(weight.load(), np.float32)
    for index, factor in changes:
        array[index] *= factor  # type: ignore[index]
    return array
