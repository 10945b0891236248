"""The vocoder's generator as static-shape graphs: mel and excitation source to waveform.

STFT and inverse STFT are convolutions inside of the graph. A convolution over a signal whose
samples are repeated r times needs only three distinct inputs for each output, so each upsampling
convolution is stored as r small ones (one per output phase): a fifth of the arithmetic, the same
result but for rounding. All of it looks back, so padding frames at the end change nothing before
them; the two places that look at the end (the reflected source, the last frame of the inverse
STFT) read the number of valid frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from torch import Tensor, nn

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.export.graph import Dim, GraphBuilder
from cosyvoice_cpu.export.weights import StoredWeight, Weight, tensor_weight
from cosyvoice_cpu.networks.reference.vocoder import ResBlock, Vocoder

_FINAL_SLOPE = 0.01
_MAGNITUDE_LIMIT = 100.0
_SNAKE_EPS = 1e-9
_FLOAT = 1


def vocoder_weights(network: Vocoder) -> dict[str, Weight]:
    """The stored weights of the generator."""
    weights: dict[str, Weight] = {}

    def convolution(name: str, conv: nn.Conv1d) -> None:
        weights[f"{name}.weight"] = tensor_weight(conv.weight)
        weights[f"{name}.bias"] = tensor_weight(conv.bias)

    def blocks(name: str, modules: nn.ModuleList) -> None:
        for i, block in enumerate(cast("Sequence[ResBlock]", modules)):
            for part in ("convs1", "convs2"):
                for j, conv in enumerate(getattr(block, part)):
                    convolution(f"{name}.{i}.{part}.{j}", conv)
            for part in ("activations1", "activations2"):
                for j, snake in enumerate(getattr(block, part)):
                    alpha = snake.alpha.detach().numpy()[:, None]  # [C, 1]
                    weights[f"{name}.{i}.{part}.{j}.alpha"] = Weight.of(alpha)
                    inverse = (1 / (alpha + np.float32(_SNAKE_EPS))).astype(np.float32)
                    weights[f"{name}.{i}.{part}.{j}.inverse"] = Weight.of(inverse)

    def convolutions(modules: nn.ModuleList) -> Sequence[nn.Conv1d]:
        return cast("Sequence[nn.Conv1d]", modules)

    convolution("conv_pre", network.conv_pre)
    convolution("conv_post", network.conv_post)
    for i, conv in enumerate(convolutions(network.source_downs)):
        convolution(f"source_downs.{i}", conv)
    rates = network.config.upsample_rates
    for i, (conv, rate) in enumerate(zip(convolutions(network.ups), rates, strict=True)):
        phases = phase_weights(conv.weight.detach().numpy(), rate)
        weights[f"ups.{i}.weight"] = Weight.of(phases)
        weights[f"ups.{i}.bias"] = tensor_weight(cast("Tensor", conv.bias).repeat_interleave(rate))
    blocks("source_resblocks", network.source_resblocks)
    blocks("resblocks", network.resblocks)
    return weights


def phase_weights(weight: Floats, rate: int) -> Floats:
    """A causal kernel [out, in, k] over a `rate` times repeated signal, as one per output phase.

    Returns [out * rate, in, taps]; row c * rate + p makes the samples rate * m + p of channel c.
    """
    out, inner, kernel = weight.shape
    taps = (kernel - 2) // rate + 2  # distinct inputs under a kernel, whatever its phase
    phases = np.zeros((out, rate, inner, taps), np.float64)
    for phase in range(rate):
        for j in range(kernel):
            tap = (phase - (kernel - 1) + j) // rate  # 0 is the newest input
            phases[:, phase, :, taps - 1 + tap] += weight[:, :, j]
    return phases.reshape(out * rate, inner, taps).astype(np.float32)


def build_vocoder(
    config: VocoderConfig,
    stored: Mapping[str, StoredWeight],
    path: Path,
    *,
    frames: int | None,
) -> None:
    """Write the graph for `frames` mel frames, or for any number if None.

    Inputs: `mel` float32 [1, 80, T + 4], the last four frames context or zeros; `source` float32
    [1, T * 480]; `valid_frames` int64 [1], T without padding. Output: `waveform` float32
    [1, T * 480] in -0.99..0.99, of which valid_frames * 480 samples have a meaning.
    """
    graph = GraphBuilder("vocoder", stored)
    ahead, samples = config.conv_pre_look_right, config.samples_per_frame
    mel_frames: Dim = "frames_and_context" if frames is None else frames + ahead
    length: Dim = "samples" if frames is None else frames * samples
    mel = graph.input("mel", np.float32, [1, config.in_channels, mel_frames])
    source = graph.input("source", np.float32, [1, length])
    valid = graph.input("valid_frames", np.int64, [1])

    spectrum = _stft(graph, config, source, valid)  # [1, 18, T * 120 + 1]
    x = _convolution(graph, mel, "conv_pre")
    last = len(config.upsample_rates) - 1
    for stage, rate in enumerate(config.upsample_rates):
        with graph.scope(f"stage{stage}"):
            x = graph.node("LeakyRelu", [x], alpha=config.lrelu_slope)
            kernel = config.upsample_kernel_sizes[stage]
            x = _upsample(graph, x, f"ups.{stage}", rate, kernel, config.base_channels >> stage + 1)
            if stage == last:
                x = graph.concat([graph.slice(x, 1, 2, axis=2), x], axis=2)
            x = graph.add(x, _source_branch(graph, config, spectrum, stage))
            count = len(config.resblock_kernel_sizes)
            outputs = [
                _resblock(
                    graph,
                    x,
                    f"resblocks.{stage * count + j}",
                    config.resblock_kernel_sizes[j],
                    config.resblock_dilation_sizes[j],
                )
                for j in range(count)
            ]
            total = graph.node("Sum", outputs)
            x = graph.mul(total, graph.constant(np.float32(1 / count)))
    x = graph.node("LeakyRelu", [x], alpha=_FINAL_SLOPE)
    x = _convolution(graph, x, "conv_post", pad=6)
    waveform = _istft(graph, config, x, valid)
    waveform = graph.node(
        "Clip",
        [
            waveform,
            graph.constant(np.float32(-config.audio_limit)),
            graph.constant(np.float32(config.audio_limit)),
        ],
    )
    graph.output(waveform, "waveform", np.float32, [1, length])
    graph.save(path)


def _convolution(
    graph: GraphBuilder, x: str, name: str, *, pad: int = 0, stride: int = 1, dilation: int = 1
) -> str:
    y = graph.node(
        "Conv",
        [x, graph.weight(f"{name}.weight"), graph.weight(f"{name}.bias")],
        pads=[pad, 0],
        strides=[stride],
        dilations=[dilation],
    )
    return y


def _upsample(graph: GraphBuilder, x: str, name: str, rate: int, kernel: int, channels: int) -> str:
    """[1, C, T] to [1, channels, T * rate]: one small convolution per output phase."""
    taps = (kernel - 2) // rate + 2
    y = _convolution(graph, x, name, pad=taps - 1)  # [1, channels * rate, T]
    y = graph.reshape(y, channels, rate, -1)
    y = graph.node("Transpose", [y], perm=[0, 2, 1])  # [channels, T, rate]
    return graph.reshape(y, 1, channels, -1)


def _source_branch(graph: GraphBuilder, config: VocoderConfig, spectrum: str, stage: int) -> str:
    stride = int(np.prod(config.upsample_rates[stage + 1 :], dtype=np.int64))
    down = _convolution(
        graph, spectrum, f"source_downs.{stage}", pad=max(stride - 1, 0), stride=stride
    )
    return _resblock(
        graph,
        down,
        f"source_resblocks.{stage}",
        config.source_resblock_kernel_sizes[stage],
        config.source_resblock_dilation_sizes[stage],
    )


def _resblock(
    graph: GraphBuilder, x: str, name: str, kernel: int, dilations: tuple[int, ...]
) -> str:
    with graph.scope(name):
        for j, dilation in enumerate(dilations):
            y = _snake(graph, x, f"{name}.activations1.{j}")
            y = _convolution(
                graph, y, f"{name}.convs1.{j}", pad=(kernel - 1) * dilation, dilation=dilation
            )
            y = _snake(graph, y, f"{name}.activations2.{j}")
            x = graph.add(x, _convolution(graph, y, f"{name}.convs2.{j}", pad=kernel - 1))
        return x


def _snake(graph: GraphBuilder, x: str, name: str) -> str:
    """x + sin(alpha x)^2 / alpha."""
    sine = graph.node("Sin", [graph.mul(x, graph.weight(f"{name}.alpha"))])
    return graph.add(x, graph.mul(graph.mul(sine, sine), graph.weight(f"{name}.inverse")))


def _fourier(config: VocoderConfig) -> tuple[Floats, Floats, Floats]:
    """Windowed analysis [18, 1, 16], windowed synthesis [18, 1, 16], squared window [1, 1, 16]."""
    size = config.istft_n_fft
    n, k = np.arange(size), np.arange(size // 2 + 1)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / size)  # periodic Hann
    angle = 2 * np.pi * k[:, None] * n / size
    basis = np.concatenate([np.cos(angle), -np.sin(angle)])
    twice = np.where((k == 0) | (k == size // 2), 1.0, 2.0)  # the other half of the spectrum
    inverse = basis * np.concatenate([twice, twice])[:, None] / size
    shape = (2 * len(k), 1, size)
    return (
        (basis * window).reshape(shape).astype(np.float32),
        (inverse * window).reshape(shape).astype(np.float32),
        (window**2).reshape(1, 1, size).astype(np.float32),
    )


def _stft(graph: GraphBuilder, config: VocoderConfig, source: str, valid: str) -> str:
    """Centred STFT of the valid samples, reflected at both ends: real, then imaginary rows."""
    with graph.scope("stft"):
        half = config.istft_n_fft // 2
        one, zero = graph.constant(np.int64(1)), graph.constant(np.int64(0))
        count = graph.node("Squeeze", [graph.node("Shape", [source], start=1, end=2)])
        start, extra = graph.constant(np.int64(-half)), graph.constant(np.int64(half))
        index = graph.node("Range", [start, graph.add(count, extra), one])
        index = graph.node("Abs", [index])
        samples = graph.mul(valid, graph.constant(np.int64(config.samples_per_frame)))
        last = graph.node("Sub", [samples, one])
        index = graph.node("Sub", [last, graph.node("Abs", [graph.node("Sub", [last, index])])])
        index = graph.node("Max", [index, zero])  # far behind the end: of no meaning
        padded = graph.node("Gather", [source, index], axis=1)
        padded = graph.node("Unsqueeze", [padded, graph.integers(1)])  # [1, 1, samples + 16]
        analysis, _, _ = _fourier(config)
        spectrum = graph.node(
            "Conv", [padded, graph.constant(analysis)], strides=[config.istft_hop_len]
        )
        return spectrum


def _istft(graph: GraphBuilder, config: VocoderConfig, x: str, valid: str) -> str:
    """Log-magnitude and phase code [1, 18, frames] to samples [1, 4 (frames - 1)]."""
    with graph.scope("istft"):
        _, synthesis, squared = _fourier(config)
        log_magnitude, code = graph.nodes("Split", [x], 2, axis=1, num_outputs=2)
        magnitude = graph.node(
            "Min",
            [graph.node("Exp", [log_magnitude]), graph.constant(np.float32(_MAGNITUDE_LIMIT))],
        )
        # Frames behind the valid ones must not reach into the last valid samples.
        hop, half = config.istft_hop_len, config.istft_n_fft // 2
        one, zero = graph.constant(np.int64(1)), graph.constant(np.int64(0))
        frames = graph.node("Squeeze", [graph.node("Shape", [x], start=2, end=3)])
        position = graph.node("Range", [zero, frames, one])
        per_frame = graph.constant(np.int64(config.samples_per_frame // hop))
        known = graph.node("LessOrEqual", [position, graph.mul(valid, per_frame)])
        mask = graph.reshape(graph.node("Cast", [known], to=_FLOAT), 1, 1, -1)
        magnitude = graph.mul(magnitude, mask)
        angle = graph.node("Sin", [code])
        real = graph.mul(magnitude, graph.node("Cos", [angle]))
        imaginary = graph.mul(magnitude, graph.node("Sin", [angle]))
        overlapped = graph.node(
            "ConvTranspose",
            [graph.concat([real, imaginary], axis=1), graph.constant(synthesis)],
            strides=[hop],
            pads=[half, half],
        )
        weight = graph.node(
            "ConvTranspose", [mask, graph.constant(squared)], strides=[hop], pads=[half, half]
        )
        weight = graph.node("Max", [weight, graph.constant(np.float32(1e-8))])
        return graph.reshape(graph.node("Div", [overlapped, weight]), 1, -1)
