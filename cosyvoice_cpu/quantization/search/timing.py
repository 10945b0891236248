"""Is a quantized component, or a layer of it, faster here? Short calls on both sides, taking turns.

Layers of one shape and kernel variant take the same time, so one of each kind is measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.export.graph import IR_VERSION, MICROSOFT, OPSET
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT
from cosyvoice_cpu.quantization.kernels.variants import KERNELS, KernelVariant
from cosyvoice_cpu.quantization.search.candidate import ComponentPlan
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session
from cosyvoice_cpu.utterances import Utterance

_TOKENS = 12  # decoded per round
_ROUNDS, _FEWEST_ROUNDS = 7, 3
_MOST_SECONDS = 10.0  # after which the fewest rounds are enough
_LEAST_SECONDS = 0.002  # of a round: shorter ones measure the clock
_GUIDED = 2  # the flow's two halves are rows of one product

LayerKind = tuple[tuple[int, ...], KernelVariant]


def speedup_of(
    name: ComponentName, systems: tuple[BundleStages, BundleStages], item: Utterance
) -> float:
    """Time of the first system / time of the second, on a call that its component does most of.

    Decoded tokens of the speech LM, the flow's condition, a flow step, a waveform.
    """
    first, second = (_CALLS[name](stages, item) for stages in systems)
    return alternating_ratio(first, second)


def _decoding(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    session = stages.speech_lm_session()
    session.prefill(item.text_ids, item.prompt_text_ids, item.prompt_tokens)

    def call() -> None:
        for token in item.tokens[:_TOKENS]:
            session.step(token)

    return call


def _flow_step(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    frames, bins = _frames(stages, item), item.prompt_mel.shape[1]
    rng = np.random.default_rng(0)
    x, mu, cond = (rng.standard_normal((2, bins, frames)).astype(np.float32) for _ in range(3))
    speaker = rng.standard_normal((2, bins)).astype(np.float32)
    mask, t = np.ones((2, 1, frames), np.float32), np.zeros(2, np.float32)

    def call() -> None:
        stages.flow_velocity(x, mask, mu, t, speaker, cond)

    return call


def _condition(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    def call() -> None:
        stages.flow_condition(
            item.tokens,
            prompt_tokens=item.prompt_tokens,
            prompt_mel=item.prompt_mel,
            embedding=item.embedding,
        )

    return call


def _waveform(stages: BundleStages, item: Utterance) -> Callable[[], None]:
    frames, bins = _frames(stages, item), item.prompt_mel.shape[1]
    mel = np.random.default_rng(0).standard_normal((bins, frames)).astype(np.float32)
    source = stages.f0_to_source(np.full(frames, 100, np.float32))

    def call() -> None:
        stages.mel_to_waveform(mel, source=source)

    return call


def _frames(stages: BundleStages, item: Utterance) -> int:
    tokens = len(item.prompt_tokens) + len(item.tokens)
    return round(tokens * stages.manifest.audio.mel_frames_per_token)


_CALLS: dict[ComponentName, Callable[[BundleStages, Utterance], Callable[[], None]]] = {
    "speech_lm": _decoding,
    "flow_encoder": _condition,
    "flow_estimator": _flow_step,
    "vocoder": _waveform,
}


def alternating_ratio(first: Callable[[], None], second: Callable[[], None]) -> float:
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


def _seconds(call: Callable[[], None], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return time.perf_counter() - start


def layer_speedups(plan: ComponentPlan, item: Utterance, threads: int) -> dict[str, float]:
    """Time of the float product / time of the integer one, for each quantized layer [K, N].

    The speech LM's products have one row, a decoded token; the flow's all frames of `item`.
    """
    kinds: dict[LayerKind, list[str]] = {}
    for layer, variant in plan.layers.items():
        shape = plan.floats[layer + WEIGHT].shape
        if len(shape) == 2:
            kinds.setdefault((shape, variant), []).append(layer)
    speedups: dict[str, float] = {}
    for layers in kinds.values():
        faster = _layer_speedup(plan, layers[0], _rows(plan.name, item), threads)
        speedups |= dict.fromkeys(layers, faster)
    return speedups


def _rows(name: ComponentName, item: Utterance) -> int:
    if name == "speech_lm":
        return 1
    frames_per_token = len(item.prompt_mel) // max(len(item.prompt_tokens), 1)
    return _GUIDED * frames_per_token * (len(item.prompt_tokens) + len(item.tokens))


def _layer_speedup(plan: ComponentPlan, layer: str, rows: int, threads: int) -> float:
    name = layer + WEIGHT
    weight, variant = plan.floats[name], plan.layers[layer]
    product = helper.make_node("MatMul", ["x", name], ["y"], name="product")
    integer = KERNELS[variant.kernel].nodes(product, name, weight.shape, None, variant)
    packed = plan.packed(layer)
    x = np.random.default_rng(0).standard_normal((rows, weight.shape[0])).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="cosyvoice-cpu-") as folder:
        calls = [
            _layer_call(
                Path(folder, "float.onnx"), [product], {name: weight}, x, threads, prepack=False
            ),
            _layer_call(Path(folder, "integer.onnx"), integer, packed, x, threads, prepack=True),
        ]
        return alternating_ratio(calls[0], calls[1])


def _layer_call(
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
