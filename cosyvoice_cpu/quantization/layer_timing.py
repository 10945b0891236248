"""Is a quantized layer faster here? One product on both sides, by itself, taking turns.

Layers of one shape and form take the same time, so one of each kind is measured.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.export.graph import IR_VERSION, MICROSOFT, OPSET
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.component import ComponentPlan
from cosyvoice_cpu.quantization.kernels import KERNELS, Form
from cosyvoice_cpu.quantization.rewrite import WEIGHT
from cosyvoice_cpu.quantization.timing import alternating_ratio
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session
from cosyvoice_cpu.utterances import Utterance

_GUIDED = 2  # the flow's two halves are rows of one product

Kind = tuple[tuple[int, ...], Form]


def layer_speedups(plan: ComponentPlan, item: Utterance, threads: int) -> dict[str, float]:
    """Time of the float product / time of the integer one, for each quantized layer [K, N].

    The speech LM's products have one row, a decoded token; the flow's all frames of `item`.
    """
    kinds: dict[Kind, list[str]] = {}
    for layer, form in plan.layers.items():
        shape = plan.floats[layer + WEIGHT].shape
        if len(shape) == 2:
            kinds.setdefault((shape, form), []).append(layer)
    speedups: dict[str, float] = {}
    for layers in kinds.values():
        faster = _speedup(plan, layers[0], _rows(plan.name, item), threads)
        speedups |= dict.fromkeys(layers, faster)
    return speedups


def _rows(name: ComponentName, item: Utterance) -> int:
    if name == "speech_lm":
        return 1
    frames_per_token = len(item.prompt_mel) // max(len(item.prompt_tokens), 1)
    return _GUIDED * frames_per_token * (len(item.prompt_tokens) + len(item.tokens))


def _speedup(plan: ComponentPlan, layer: str, rows: int, threads: int) -> float:
    name = layer + WEIGHT
    weight, form = plan.floats[name], plan.layers[layer]
    product = helper.make_node("MatMul", ["x", name], ["y"], name="product")
    integer = KERNELS[form.kernel].nodes(product, name, weight.shape, None, form)
    packed = {
        key: value
        for key, value in plan.weights.items()
        if key == name or key.startswith(f"{name}.")
    }
    x = np.random.default_rng(0).standard_normal((rows, weight.shape[0])).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="cosyvoice-cpu-") as folder:
        calls = [
            _call(Path(folder, "float.onnx"), [product], {name: weight}, x, threads, prepack=False),
            _call(Path(folder, "integer.onnx"), integer, packed, x, threads, prepack=True),
        ]
        return alternating_ratio(calls[0], calls[1])


def _call(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, Weight],
    x: NDArray[np.float32],
    threads: int,
    *,
    prepack: bool,
) -> Callable[[], None]:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ascontiguousarray(w.load()), k) for k, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    path.write_bytes(model.SerializeToString())
    session = open_session(path, threads, prepack=prepack)

    def call() -> None:
        session.run(["y"], {"x": x})

    return call
