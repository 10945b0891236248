"""f0 predictor and harmonic excitation as two graphs for any number of frames.

Both are small, and both need float64 where the original has it: the excitation adds an f0 error
up over the utterance. ONNX Runtime has no float64 convolution, so the predictor's are products of
shifted frames. The excitation noise is an input: the graph has no randomness of its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.export.graph import GraphBuilder
from cosyvoice_cpu.export.weights import StoredWeight, Weight, tensor_weight
from cosyvoice_cpu.networks.reference.f0_predictor import LOOKAHEAD_FRAMES
from cosyvoice_cpu.networks.reference.vocoder import Vocoder


def f0_weights(network: Vocoder) -> dict[str, Weight]:
    """Stored weights of predictor (float64, convolutions as [kernel * in, out]) and excitation."""
    predictor, merge = network.f0_predictor, network.m_source.l_linear
    weights = {
        "f0.classifier.weight": tensor_weight(predictor.classifier.weight.T),
        "f0.classifier.bias": tensor_weight(predictor.classifier.bias),
        "source.weight": tensor_weight(merge.weight.T),
        "source.bias": tensor_weight(merge.bias),
    }
    for i, conv in enumerate(cast("Sequence[nn.Conv1d]", predictor.condnet[::2])):
        weights[f"f0.{i}.weight"] = tensor_weight(_as_product(conv.weight))
        weights[f"f0.{i}.bias"] = tensor_weight(conv.bias)
    return weights


def _as_product(weight: Tensor) -> Tensor:
    """[out, in, kernel] to [kernel * in, out]: rows in the order of frames side by side."""
    return weight.permute(2, 1, 0).reshape(-1, weight.shape[0])


def build_f0_predictor(
    config: VocoderConfig, stored: Mapping[str, StoredWeight], path: Path
) -> None:
    """Write the graph: `mel` float32 [80, T + 3] to `f0` float32 [T] in Hz.

    The last three frames are context: the following frames, or zeros at the end.
    """
    graph = GraphBuilder("f0_predictor", stored)
    mel = graph.input("mel", np.float32, [config.in_channels, "frames_and_context"])
    h = graph.node("Transpose", [mel], perm=[1, 0])
    h = graph.node("Cast", [h], to=_DOUBLE)  # [T + 3, 80]
    zero, one = graph.constant(np.float64(0)), graph.constant(np.float64(1))
    for i in range(5):
        kernel = LOOKAHEAD_FRAMES + 1 if i == 0 else 3
        if i:  # causal; the first one takes its context from the input
            h = graph.node("Pad", [h, graph.integers(kernel - 1, 0, 0, 0)])
        last = [kernel - 1 - shift for shift in range(kernel)]
        shifted = [
            graph.slice(h, shift, -end if end else _END, axis=0) for shift, end in enumerate(last)
        ]
        h = graph.linear(graph.concat(shifted, axis=1), f"f0.{i}.weight", f"f0.{i}.bias")
        negative = graph.node("Exp", [graph.node("Min", [h, zero])])  # ELU; Exp stays finite
        positive = graph.node("Max", [h, zero])
        h = graph.add(positive, graph.node("Sub", [negative, one]))
    f0 = graph.linear(h, "f0.classifier.weight", "f0.classifier.bias")
    f0 = graph.node("Cast", [graph.node("Abs", [graph.reshape(f0, -1)])], to=_FLOAT)
    graph.output(f0, "f0", np.float32, ["frames"])
    graph.save(path)


_FLOAT, _DOUBLE = 1, 11  # TensorProto's numbers
_END = np.iinfo(np.int64).max


def build_excitation(config: VocoderConfig, stored: Mapping[str, StoredWeight], path: Path) -> None:
    """Write the graph: `f0` float32 [T] and `noise` float32 [T * 480, 9] to `source` [1, T * 480].

    The phase is summed in float64, rounded to float32 and scaled in the original's order.
    """
    graph = GraphBuilder("excitation", stored)
    harmonics, samples = config.nb_harmonics + 1, config.samples_per_frame
    f0 = graph.input("f0", np.float32, ["frames"])
    noise = graph.input("noise", np.float32, ["samples", harmonics])

    def scalar(value: float) -> str:
        return graph.constant(np.float32(value))

    column = graph.node("Unsqueeze", [f0, graph.integers(1)])  # [T, 1]
    order = graph.constant(np.arange(1, harmonics + 1, dtype=np.float32))
    turns = graph.node("Div", [graph.mul(column, order), scalar(config.sampling_rate)])
    turns = graph.node("Mod", [turns, scalar(1)], fmod=1)
    turns = graph.node("Cast", [turns], to=_DOUBLE)
    phase = graph.node("CumSum", [turns, graph.constant(np.int64(0))])
    phase = graph.node("Cast", [phase], to=_FLOAT)
    for factor in (2.0, math.pi, float(samples)):
        phase = graph.mul(phase, scalar(factor))
    sine = graph.node("Sin", [graph.node("Cast", [phase], to=_DOUBLE)])
    sine = graph.mul(graph.node("Cast", [sine], to=_FLOAT), scalar(config.nsf_alpha))
    is_voiced = graph.node("Greater", [column, scalar(config.nsf_voiced_threshold)])
    zero = scalar(0)
    sine = graph.node("Where", [is_voiced, sine, zero])  # [T, 9]
    level = graph.node("Where", [is_voiced, scalar(config.nsf_sigma), scalar(config.nsf_alpha / 3)])

    noise = graph.reshape(noise, -1, samples, harmonics)  # [T, 480, 9]
    axis = graph.integers(1)
    level = graph.node("Unsqueeze", [level, axis])
    signal = graph.add(graph.node("Unsqueeze", [sine, axis]), graph.mul(noise, level))
    merged = graph.linear(signal, "source.weight", "source.bias")  # [T, 480, 1]
    source = graph.reshape(graph.node("Tanh", [merged]), 1, -1)
    graph.output(source, "source", np.float32, [1, "samples"])
    graph.save(path)
