"""Where a scale of a layer's input channels can be hidden, so that it costs nothing at run time.

Dividing channel k of a layer's input by s[k] and multiplying row k of its weight by s[k] changes
nothing in float. The division is free where something before it is a stored factor of that channel
and nothing in between is curved:

    flow       norm of qkv, expand and final   shift and scale of the modulation table, all steps
               out                             the value columns of qkv: attention mixes rows alone
    speech LM  qkv, gate_up and head           the weight of the RMSNorm before
               out                             the value columns of qkv, shared by a group of heads
               down                            the up half of gate_up, a factor of SiLU(gate) * up

What enters the flow's `contract` comes out of a GELU, so its channels stay as they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.rewrite import WEIGHT

_MODULATIONS = 6  # rows of a block in the table: shift, scale, gate; shift, scale, gate


@dataclass(frozen=True)
class Part:
    """Channels `start` to `stop` of the last axis of a stored tensor, of one row if it is given."""

    tensor: str
    start: int = 0
    stop: int | None = None
    row: int | None = None  # of the modulation table [steps, rows, channels]

    @property
    def index(self) -> tuple[object, ...]:
        """What picks it from the tensor's array."""
        channels = slice(self.start, self.stop)
        return (..., channels) if self.row is None else (slice(None), self.row, channels)


@dataclass(frozen=True, eq=False)
class Fold:
    """`layer`'s rows are multiplied, `divided` are divided by the same scales."""

    layer: str
    divided: tuple[Part, ...]
    scale_of: NDArray[np.int64]  # [K]: which scale each input channel of the layer has

    @property
    def scales(self) -> int:
        """How many there are; fewer than channels where heads share values."""
        return int(self.scale_of.max()) + 1


@dataclass(frozen=True, eq=False)
class Smoothing:
    """The folds of a component and the scales that calibration chose for them."""

    folds: Sequence[Fold]
    scales: Mapping[str, Floats]  # by layer, positive; a layer that stays as it is has none
    strengths: Mapping[str, float]  # of every layer that was looked at; 0 for those

    def applied(self, floats: Mapping[str, Weight]) -> dict[str, Weight]:
        """The weights with all scales hidden in them, computed when one is loaded."""
        return folded(floats, self.folds, self.scales)

    def around(self, layer: str) -> Smoothing:
        """What touches the weight of `layer`, so that it becomes what `applied` makes of it."""
        touching = [
            fold
            for fold in self.folds
            if fold.layer == layer or any(p.tensor == layer + WEIGHT for p in fold.divided)
        ]
        return Smoothing(touching, self.scales, self.strengths)

    def __str__(self) -> str:
        """As in "smoothed 40 of 66 layers: strength 0.5 (30), 0.6 (10)"."""
        counts = Counter(value for value in self.strengths.values() if value)
        often = ", ".join(f"{value:g} ({number})" for value, number in counts.most_common())
        return f"smoothed {counts.total()} of {len(self.strengths)} layers: strength {often or 0}"


def smoothing_arrays(smoothing: Smoothing) -> dict[str, NDArray[np.generic]]:
    """As plain arrays, to be kept."""
    strengths = {f"{layer}.strength": value for layer, value in smoothing.strengths.items()}
    kept = {key: np.array(value, np.float32) for key, value in strengths.items()}
    return {**kept, **{f"{layer}.scale": scale for layer, scale in smoothing.scales.items()}}


def smoothing_of(folds: Sequence[Fold], arrays: Mapping[str, NDArray[np.generic]]) -> Smoothing:
    """What `smoothing_arrays` gave."""

    def those(end: str) -> dict[str, Floats]:
        return {
            key.removesuffix(end): np.asarray(array, np.float32)
            for key, array in arrays.items()
            if key.endswith(end)
        }

    strengths = {layer: round(value.item(), 3) for layer, value in those(".strength").items()}
    return Smoothing(folds, those(".scale"), strengths)


def folds_of(name: ComponentName, graph: Path, floats: Mapping[str, Weight]) -> list[Fold]:
    """Every fold of a component whose float graph is at `graph`; none for other components."""
    if name == "flow_estimator":
        return _flow_folds(floats)
    if name == "speech_lm":
        return _speech_lm_folds(floats, _kv_group(graph))
    return []


def folded(
    floats: Mapping[str, Weight], folds: Sequence[Fold], scales: Mapping[str, Floats]
) -> dict[str, Weight]:
    """The weights with the scales of each fold hidden in them; `scales` by layer, positive.

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


def _flow_folds(floats: Mapping[str, Weight]) -> list[Fold]:
    folds = []
    depth = sum(name.endswith(f".expand{WEIGHT}") for name in floats)
    for i in range(depth):
        block, row = f"blocks.{i}", _MODULATIONS * i
        width = floats[f"{block}.out{WEIGHT}"].shape[0]
        values = (2 * width, 3 * width)  # query, key, value side by side
        folds += [
            _normed(f"{block}.qkv", floats, Part("modulation", row=row + 1), row),
            Fold(
                f"{block}.out",
                (Part(f"{block}.qkv{WEIGHT}", *values), Part(f"{block}.qkv.bias", *values)),
                np.arange(width),
            ),
            _normed(f"{block}.expand", floats, Part("modulation", row=row + 4), row + 3),
        ]
    last = _MODULATIONS * depth  # scale and shift of the last norm
    return [*folds, _normed("final", floats, Part("modulation", row=last), last + 1)]


def _normed(layer: str, floats: Mapping[str, Weight], scale: Part, shift_row: int) -> Fold:
    channels = np.arange(floats[layer + WEIGHT].shape[0])
    return Fold(layer, (scale, Part("modulation", row=shift_row)), channels)


def _speech_lm_folds(floats: Mapping[str, Weight], group: tuple[int, int]) -> list[Fold]:
    """`group`: heads of query, heads of key and value."""
    heads, kv_heads = group
    folds = []
    layers = sum(name.endswith(f".gate_up{WEIGHT}") for name in floats)
    for i in range(layers):
        layer = f"layers.{i}"
        hidden, columns = floats[f"{layer}.qkv{WEIGHT}"].shape
        head = columns // (heads + 2 * kv_heads)  # channels of a head
        values = ((heads + kv_heads) * head, columns)
        owner = np.arange(heads) // (heads // kv_heads)
        shared = (owner[:, None] * head + np.arange(head)).reshape(-1)
        inner = floats[f"{layer}.down{WEIGHT}"].shape[0]
        folds += [
            Fold(f"{layer}.qkv", (Part(f"{layer}.attention_norm{WEIGHT}"),), np.arange(hidden)),
            Fold(
                f"{layer}.out",
                (Part(f"{layer}.qkv{WEIGHT}", *values), Part(f"{layer}.qkv.bias", *values)),
                shared,
            ),
            Fold(f"{layer}.gate_up", (Part(f"{layer}.mlp_norm{WEIGHT}"),), np.arange(hidden)),
            Fold(
                f"{layer}.down",
                (Part(f"{layer}.gate_up{WEIGHT}", inner, 2 * inner),),
                np.arange(inner),
            ),
        ]
    hidden = floats[f"head{WEIGHT}"].shape[0]
    return [*folds, Fold("head", (Part(f"norm{WEIGHT}"),), np.arange(hidden))]


def _kv_group(graph: Path) -> tuple[int, int]:
    """Heads of query, heads of key and value, as the attention of the graph has them."""
    model = onnx.load(str(graph), load_external_data=False)
    node = next(node for node in model.graph.node if node.op_type == "GroupQueryAttention")
    found = {attribute.name: attribute.i for attribute in node.attribute}
    return found["num_heads"], found["kv_num_heads"]
