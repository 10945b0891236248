"""Recorded activations: the range and a few rows of what enters each layer of the float graph.

The graph gets extra outputs. Ranges are reduced inside of it, so that a call gives a few kilobytes
instead of a gigabyte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.quantization.calibration.altered_graphs import PICK, AlteredComponent
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

_ROWS = {"speech_lm": 64}  # drawn of a call
_RECORDED = "recorded/"  # in front of the names of outputs that are added
_ROWS_OF_A_STEP = 8  # the flow has ten calls for an item


@dataclass(frozen=True, eq=False)
class LayerActivations:
    """The input of a layer over all calls, [K] channels."""

    low: Floats  # [K], at most 0
    high: Floats  # [K], at least 0
    rows: Floats  # [n, K], drawn at random

    @property
    def largest(self) -> Floats:
        """[K], of the magnitudes."""
        return np.maximum(self.high, -self.low)


def record_activations(
    stages: BundleStages,
    name: ComponentName,
    items: Sequence[Utterance],
    progress: Share,
) -> dict[str, NDArray[np.generic]]:
    """`LAYER.low`, `LAYER.high`, `LAYER.rows` of each product of a component on `items`.

    As plain arrays, for the measurement cache; `by_layer` gives them back their names.
    """
    component = AlteredComponent(stages.bundle, name, stages.threads, _add_outputs)
    found: dict[str, list[Floats]] = {}
    for count, item in enumerate(items):
        for call in component.run(item, _ROWS.get(name, _ROWS_OF_A_STEP)):
            for key, array in call.outputs.items():
                if key.startswith(_RECORDED):
                    found.setdefault(key.removeprefix(_RECORDED), []).append(array)
        progress((count + 1) / len(items))
    return {key: _joined(key, arrays) for key, arrays in found.items()}


def by_layer(arrays: dict[str, NDArray[np.generic]]) -> dict[str, LayerActivations]:
    """What `record_activations` gave, by layer."""

    def floats(key: str) -> Floats:
        return np.asarray(arrays[key], np.float32)

    layers = [key.removesuffix(".rows") for key in arrays if key.endswith(".rows")]
    return {
        layer: LayerActivations(*(floats(f"{layer}.{part}") for part in ("low", "high", "rows")))
        for layer in layers
    }


def _joined(key: str, arrays: list[Floats]) -> Floats:
    if key.endswith(".rows"):
        return np.concatenate(arrays)
    reduce = np.minimum if key.endswith(".low") else np.maximum
    bound: Floats = reduce.reduce(arrays, initial=np.float32(0))
    return bound


def _add_outputs(model: onnx.ModelProto) -> None:
    """Add the outputs, and the input `PICK` with the numbers of the rows to be drawn."""
    graph = model.graph
    width = {
        tensor.name: tensor.dims[0]
        for tensor in graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL and len(tensor.dims) == 2
    }
    graph.input.append(helper.make_tensor_value_info(PICK, TensorProto.INT64, ["picked"]))
    graph.initializer.append(numpy_helper.from_array(np.array([0]), f"{_RECORDED}axis"))
    for node in list(graph.node):
        if node.op_type not in ("MatMul", "Gemm") or node.input[1] not in width:
            continue
        layer = f"{_RECORDED}{node.input[1].removesuffix(WEIGHT)}"
        shape = np.array([-1, width[node.input[1]]])
        graph.initializer.append(numpy_helper.from_array(shape, f"{layer}.shape"))
        flat = f"{layer}.flat"
        graph.node.append(helper.make_node("Reshape", [node.input[0], f"{layer}.shape"], [flat]))
        low, high, rows = (f"{layer}.{part}" for part in ("low", "high", "rows"))
        graph.node.extend(
            [
                helper.make_node("ReduceMin", [flat, f"{_RECORDED}axis"], [low], keepdims=0),
                helper.make_node("ReduceMax", [flat, f"{_RECORDED}axis"], [high], keepdims=0),
                helper.make_node("Gather", [flat, PICK], [rows], axis=0),
            ]
        )
        for output in (low, high, rows):
            graph.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
