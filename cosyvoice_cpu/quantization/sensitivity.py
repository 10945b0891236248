"""What each layer costs in quality: the component's output with this layer alone quantized.

Errors of layers add up like powers of noise, so the table also says which layers have to stay
float32 for a component to become better by so many dB.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
from onnx import numpy_helper

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.evaluation.distances import MOST_DB, sqnr_db
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.component import WEIGHTS, ComponentPlan
from cosyvoice_cpu.quantization.findings import Findings, digest_of, item_digest
from cosyvoice_cpu.quantization.kernels import KERNELS
from cosyvoice_cpu.quantization.players import Call, Player
from cosyvoice_cpu.quantization.rewrite import WEIGHT
from cosyvoice_cpu.quantization.stored import read_weights
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance

PLAYED: tuple[ComponentName, ...] = ("speech_lm", "flow_estimator")
_PROBED = (0, 4, 9)  # first, middle and last of the flow's steps; the speech LM has one call
_TOKENS = 25  # of the prompt and behind it: two seconds show what six do
_OUTPUTS = ("logits", "velocity")


@dataclass(frozen=True)
class LayerSensitivity:
    """A row of the table."""

    component: ComponentName
    layer: str
    kernel: str
    sqnr_db: float  # of logits or velocity
    bytes_saved: int


def measure_sensitivity(
    stages: BundleStages,
    plan: ComponentPlan,
    item: Utterance,
    findings: Findings,
    progress: Callable[[float], None],
) -> list[LayerSensitivity]:
    """Every quantized product of `plan`, the worst first, on the first seconds of `item`.

    `stages` are the float32 bundle's. A smoothed layer has its scales where they are hidden.
    """
    short = shortened(item)
    floats = read_weights(stages.bundle.file(plan.name, WEIGHTS))
    layers = [layer for layer in plan.layers if len(plan.floats[layer + WEIGHT].shape) == 2]
    want: list[Call] = []
    rows = []
    for count, layer in enumerate(layers):

        def compute(layer: str = layer) -> dict[str, float]:
            if not want:
                calls = list(Player(stages, plan.name, _unaltered).play(short))
                want.extend(calls[step] for step in _PROBED if step < len(calls))
            alter = partial(_quantize_one, plan, layer, floats)
            got = Player(stages, plan.name, alter, prepack=True).again(short, want)
            return {"sqnr_db": max(_difference(got, want), -MOST_DB)}

        given = (plan.recipe, plan.layers[layer], item_digest(short))
        key = digest_of(plan.name, layer, *given)[:32]
        value = findings.values(f"sensitivity-{key}", compute)["sqnr_db"]
        saved = plan.floats[layer + WEIGHT].num_bytes - _packed_bytes(plan, layer)
        kernel = plan.layers[layer].kernel
        rows.append(LayerSensitivity(plan.name, layer, kernel, value, saved))
        progress((count + 1) / len(layers))
    return sorted(rows, key=lambda row: row.sqnr_db)


def worst_layers(rows: Sequence[LayerSensitivity], gain_db: float) -> list[str]:
    """The fewest layers without which the sum of all errors is smaller by `gain_db`."""
    powers = {row.layer: 10 ** (-row.sqnr_db / 10) for row in rows}
    left = sum(powers.values())
    goal = left * 10 ** (-gain_db / 10)
    chosen = []
    for layer in sorted(powers, key=lambda layer: -powers[layer]):
        if left <= goal:
            break
        chosen.append(layer)
        left -= powers[layer]
    return chosen


def shortened(item: Utterance) -> Utterance:
    """The last second of the prompt and the first behind it."""
    prompt = item.prompt_tokens[-_TOKENS:]
    per_token = len(item.prompt_mel) // max(len(item.prompt_tokens), 1)
    return replace(
        item,
        prompt_tokens=prompt,
        tokens=item.tokens[:_TOKENS],
        prompt_mel=item.prompt_mel[len(item.prompt_mel) - len(prompt) * per_token :],
    )


def _difference(got: Sequence[Call], want: Sequence[Call]) -> float:
    """SQNR over all calls together."""
    arrays = [
        np.concatenate([call.outputs[name].reshape(-1) for call in calls])
        for calls in (got, want)
        for name in _OUTPUTS
        if name in calls[0].outputs
    ]
    return sqnr_db(arrays[0], arrays[1])


def _unaltered(model: onnx.ModelProto) -> None:
    pass


def _quantize_one(
    plan: ComponentPlan, layer: str, floats: Mapping[str, Weight], model: onnx.ModelProto
) -> None:
    """Compute one product in its form; its integers go into the model, not into a file."""
    name, form, graph = layer + WEIGHT, plan.layers[layer], model.graph
    (index,) = [i for i, node in enumerate(graph.node) if name in list(node.input)[1:2]]
    node = graph.node[index]
    bias = node.input[2] if len(node.input) > 2 else None
    nodes = KERNELS[form.kernel].nodes(node, name, plan.floats[name].shape, bias, form)
    before, after = list(graph.node[:index]), list(graph.node[index + 1 :])
    whole = onnx.GraphProto()
    whole.node.extend([*before, *nodes, *after])
    del graph.node[:]
    graph.node.extend(whole.node)
    changed = _packed(plan, layer)
    if plan.smoothing:
        smooth = plan.smoothing.around(layer).applied(floats)
        moved = {key: weight for key, weight in smooth.items() if weight is not floats[key]}
        changed = moved | changed
    kept = [tensor for tensor in graph.initializer if tensor.name not in changed]
    inside = [
        numpy_helper.from_array(np.ascontiguousarray(weight.load()), key)
        for key, weight in changed.items()
    ]
    whole.initializer.extend([*kept, *inside])
    del graph.initializer[:]
    graph.initializer.extend(whole.initializer)


def _packed(plan: ComponentPlan, layer: str) -> dict[str, Weight]:
    name = layer + WEIGHT
    return {
        key: weight
        for key, weight in plan.weights.items()
        if key == name or key.startswith(f"{name}.")
    }


def _packed_bytes(plan: ComponentPlan, layer: str) -> int:
    return sum(weight.num_bytes for weight in _packed(plan, layer).values())
