"""Is a quantized component, or a layer of it, faster here? Short calls on both sides, taking turns.

Layers of one shape and kernel variant take the same time, so one of each kind is measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.component_runner import MAIN_CALLS, repeatable_call, utterance_frames
from cosyvoice_cpu.export.graph import IR_VERSION, MICROSOFT, OPSET
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT, embed_weights
from cosyvoice_cpu.quantization.kernels.variants import KERNELS, KernelVariant
from cosyvoice_cpu.quantization.search.candidate import ComponentPlan
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.utterances import Utterance

_TOKENS = 12  # decoded per round
_ROUNDS, _FEWEST_ROUNDS = 7, 3
_MOST_SECONDS = 10.0  # after which the fewest rounds are enough
_LEAST_SECONDS = 0.002  # of a round: shorter ones measure the clock
_GUIDED = 2  # the flow's two halves are rows of one product

LayerKind = tuple[tuple[int, ...], KernelVariant]


def speedup_of(name: ComponentName, systems: tuple[Stages, Stages], item: Utterance) -> float:
    """Time of the first system / time of the second, on the call that a component does most of."""
    count = _TOKENS if name == "speech_lm" else 1
    first, second = (repeatable_call(stages, MAIN_CALLS[name], item, count) for stages in systems)
    return alternating_ratio(first, second)


def layer_speedups(
    plan: ComponentPlan, stages: Stages, item: Utterance, threads: int
) -> dict[str, float]:
    """Time of the float product / time of the integer one, for each quantized layer [K, N].

    The speech LM's products have one row, a decoded token; the flow's all frames of `item`.
    """
    kinds: dict[LayerKind, list[str]] = {}
    for layer, variant in plan.layers.items():
        shape = plan.floats[layer + WEIGHT].shape
        if len(shape) == 2:
            kinds.setdefault((shape, variant), []).append(layer)
    rows = 1 if plan.name == "speech_lm" else _GUIDED * utterance_frames(stages, item)
    speedups: dict[str, float] = {}
    for layers in kinds.values():
        faster = _layer_speedup(plan, layers[0], rows, threads)
        speedups |= dict.fromkeys(layers, faster)
    return speedups


def _layer_speedup(plan: ComponentPlan, layer: str, rows: int, threads: int) -> float:
    name = layer + WEIGHT
    weight, variant = plan.floats[name], plan.layers[layer]
    product = helper.make_node("MatMul", ["x", name], ["y"], name="product")
    integer = KERNELS[variant.kernel].nodes(product, name, weight.shape, None, variant)
    x = np.random.default_rng(0).standard_normal((rows, weight.shape[0])).astype(np.float32)
    return alternating_ratio(
        _layer_call([product], {name: weight}, x, threads, prepack=False),
        _layer_call(integer, plan.packed(layer), x, threads, prepack=True),
    )


def _layer_call(
    nodes: Sequence[onnx.NodeProto],
    weights: Mapping[str, Weight],
    x: Floats,
    threads: int,
    *,
    prepack: bool,
) -> Callable[[], object]:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    embed_weights(model, weights)
    session = open_session(model.SerializeToString(), threads, prepack=prepack)
    return lambda: session.run(["y"], {"x": x})


def alternating_ratio(first: Callable[[], object], second: Callable[[], object]) -> float:
    """Time of `first` / time of `second`: the minimum of rounds that alternate.

    What else runs on the machine can only add.
    """
    begin = time.perf_counter()
    first()
    second()  # opens sessions, touches pages
    repeats = max(1, round(_LEAST_SECONDS / max(_seconds(second, 1), 1e-6)))
    times: list[tuple[float, float]] = []
    while len(times) < _ROUNDS and (
        len(times) < _FEWEST_ROUNDS or time.perf_counter() - begin < _MOST_SECONDS
    ):
        times.append((_seconds(first, repeats), _seconds(second, repeats)))
    return min(pair[0] for pair in times) / min(pair[1] for pair in times)


def _seconds(call: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start
