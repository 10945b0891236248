"""What a request takes, from the model's sizes and the machine's peak throughput alone.

`least_seconds` is the roofline: every product at the peak of its precision, every weight of the
speech LM read once per token at the peak rate. `predict` divides by the shares of the peak that the
engine reaches, measured on two cores of an AMD EPYC (Zen 4) with ONNX Runtime 1.32 at full size;
`docs/performance.md` says which run gave which. Other processors move them: it is a guide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cosyvoice_cpu.bundle.manifest import Component
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.flops import (
    flow_step_flops,
    prefill_flops,
    speech_lm_weights,
    vocoder_flops,
)
from cosyvoice_cpu.evaluation.bench.peak_throughput import PeakThroughput
from cosyvoice_cpu.evaluation.bench.workload import Request

_EMBEDDINGS = "text_embedding"


@dataclass(frozen=True)
class _Rates:
    """Operations, and for decoding bytes, per second."""

    prefill: float
    decode: float
    flow_linear: float
    flow_other: float  # attention and convolutions
    vocoder: float


def _stage_seconds(
    config: CheckpointConfig, request: Request, rates: _Rates, lm_bits: float
) -> dict[str, float]:
    """`speech_lm`, `flow` and `vocoder` at these rates; `lm_bits` a weight of the speech LM."""
    prefill = prefill_flops(config.speech_lm, request.prefill_positions) / rates.prefill
    bytes_per_token = speech_lm_weights(config.speech_lm) * lm_bits / 8
    decode = (request.tokens - 1) * bytes_per_token / rates.decode
    step = flow_step_flops(config.flow.estimator, request.solved_frames, request.frames)
    other = (step.attention + step.convolution) / rates.flow_other
    return {
        "speech_lm": prefill + decode,
        "flow": request.guided_steps * (step.linear / rates.flow_linear + other),
        "vocoder": vocoder_flops(config.vocoder, request.target_frames) / rates.vocoder,
    }


def least_seconds(
    spec: EngineSpec, config: CheckpointConfig, request: Request, peak: PeakThroughput
) -> dict[str, float]:
    """Seconds that `speech_lm`, `flow` and `vocoder` of a request take at least.

    Products with weights at the peak of their precision, all else in float32 (BF16 where that is
    how the row computes). Empty if a peak was not measured.
    """
    fp32, int8 = peak.fp32_gflops * 1e9, peak.int8_gops * 1e9
    other = fp32  # what is not a product with weights
    if spec.variant == "bfloat16":
        if peak.bf16_gflops is None:
            return {}
        other = peak.bf16_gflops * 1e9
    bits = _weight_bits(spec)
    rates = _Rates(
        prefill=int8 if bits["speech_lm"] <= 8 else other,
        decode=peak.read_gb_s * 1e9,
        flow_linear=int8 if bits["flow_estimator"] <= 8 else other,
        flow_other=other,
        vocoder=fp32,
    )
    return _stage_seconds(config, request, rates, bits["speech_lm"])


def _weight_bits(spec: EngineSpec) -> dict[str, int]:
    """Bits of a weight in memory, per network."""
    if spec.kind == "reference":
        bits = 16 if spec.variant == "bfloat16" else 32
        return {"speech_lm": bits, "flow_estimator": bits}
    components = read_manifest(Path(spec.path)).components
    return {
        "speech_lm": _bits_of(components["speech_lm"]),
        "flow_estimator": _bits_of(components["flow_estimator"]),
    }


def _bits_of(component: Component) -> int:
    for name, bits in (("int4", 4), ("int8", 8), ("float16", 16)):
        if name in component.precision:
            return bits
    return 32


def official_size(bundle: Path, config: CheckpointConfig) -> bool:
    """Whether a bundle's networks have the sizes of `config`, as far as its text table tells."""
    from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable

    try:
        table = EmbeddingTable(bundle / "speech_lm" / "weights.safetensors", _EMBEDDINGS)
    except BundleError:
        return False
    lm = config.speech_lm
    return table.shape == (lm.text_vocab_size, lm.hidden_size)


@dataclass(frozen=True)
class RecipeCosts:
    """How a recipe computes: bits per weight, and the shares of the peak that it reaches."""

    name: str
    lm_bits: float  # per weight, scales included
    flow_bits: float
    prefill: float  # of FP32; 8-bit kernels exceed it
    decode: float  # of the read rate
    flow_linear: float  # of the peak of the flow's precision
    flow_other: float  # attention and convolutions, of FP32
    vocoder: float  # of FP32


RECIPES = (
    RecipeCosts("float32", 32, 32, 0.85, 0.80, 0.85, 0.80, 0.70),
    RecipeCosts("int8", 8.25, 8, 1.30, 0.80, 0.70, 0.80, 0.70),
)

# Resident beside the weights of LM and flow, fitted to measured peaks (docs/performance.md), which
# it meets within 2 %. Both recipes need the same per frame: activations stay float32.
_PROGRAM_MB = 222.0  # the program, the vocoder's weights, the KV cache
_ACTIVATIONS_MB_PER_FRAME = 0.27


@dataclass(frozen=True)
class Prediction:
    """What a request takes with a recipe. Memory is the resident peak, mapped files included."""

    recipe: str
    rtf: float
    speech_lm_s: float
    flow_s: float
    vocoder_s: float
    peak_rss_mb: float

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def predict(
    recipe: RecipeCosts, config: CheckpointConfig, request: Request, peak: PeakThroughput
) -> Prediction:
    """Time and memory of `request` with a model of the sizes in `config`."""
    fp32 = peak.fp32_gflops * 1e9
    flow_peak = fp32 if recipe.flow_bits > 8 else peak.int8_gops * 1e9
    rates = _Rates(
        prefill=fp32 * recipe.prefill,
        decode=peak.read_gb_s * 1e9 * recipe.decode,
        flow_linear=flow_peak * recipe.flow_linear,
        flow_other=fp32 * recipe.flow_other,
        vocoder=fp32 * recipe.vocoder,
    )
    seconds = _stage_seconds(config, request, rates, recipe.lm_bits)
    return Prediction(
        recipe.name,
        sum(seconds.values()) / request.workload.seconds,
        seconds["speech_lm"],
        seconds["flow"],
        seconds["vocoder"],
        _resident_mb(recipe, config, request.frames),
    )


def _resident_mb(recipe: RecipeCosts, config: CheckpointConfig, frames: int) -> float:
    """Every weight of LM and flow once, mapped or repacked, and what else is resident."""
    lm = speech_lm_weights(config.speech_lm) * recipe.lm_bits / 8
    # A multiply-add per weight and row, and a step of one frame has two rows: 4 operations.
    step = flow_step_flops(config.flow.estimator, 1)
    flow = step.linear / 4 * recipe.flow_bits / 8 + step.convolution / 4 * 4  # the latter float32
    return (lm + flow) / 1e6 + _PROGRAM_MB + _ACTIVATIONS_MB_PER_FRAME * frames
