"""Real-time factor and memory of a recipe on this machine, before anything is downloaded.

A stage's time is its work (`work`) at the machine's measured ceilings (`ceilings`), divided by the
share of the ceiling that the engine reaches there. The shares come from two cores of an AMD EPYC
(Zen 4) with ONNX Runtime 1.32 at full size, 10 s of audio after a prompt of 5 s; `docs/
performance.md` says which run gave which. Other processors move them: a prediction is a guide.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.evaluation.bench.flops import (
    flow_step_work,
    prefill_operations,
    speech_lm_weights,
    vocoder_operations,
)
from cosyvoice_cpu.evaluation.bench.peak_throughput import Ceilings
from cosyvoice_cpu.evaluation.bench.workload import FRAMES_PER_TOKEN, SOLVER_STEPS, Workload


@dataclass(frozen=True)
class RecipeCosts:
    """How a recipe computes: bits per weight, and shares of the ceilings that it reaches."""

    name: str
    lm_bits: float  # per weight, scales included
    flow_bits: float
    prefill: float  # of the FP32 ceiling; 8-bit kernels exceed it
    decode: float  # of the read rate
    flow_linear: float  # of the ceiling of the flow's precision
    flow_other: float  # attention and convolutions, of the FP32 ceiling
    vocoder: float  # of the FP32 ceiling


RECIPES = (
    RecipeCosts("float32", 32, 32, 0.85, 0.80, 0.85, 0.80, 0.70),
    RecipeCosts("int8", 8.25, 8, 1.30, 0.80, 0.70, 0.80, 0.70),
)

# Resident beside the weights of LM and flow: the program, the vocoder's weights, the KV cache; and
# activations, whose arena the flow's longest graph fills.
_PROGRAM_MB = 220.0
_ACTIVATIONS_MB_PER_FRAME = 0.29


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
    recipe: RecipeCosts, config: CheckpointConfig, workload: Workload, ceilings: Ceilings
) -> Prediction:
    """Time and memory of `workload` with a model of the sizes in `config`."""
    fp32, int8 = ceilings.fp32_gflops * 1e9, ceilings.int8_gops * 1e9
    weights = speech_lm_weights(config.speech_lm)
    prefill = prefill_operations(config.speech_lm, workload.prefill_positions)
    token_s = weights * recipe.lm_bits / 8 / (ceilings.read_gb_s * 1e9 * recipe.decode)
    speech_lm = prefill / (fp32 * recipe.prefill) + (workload.tokens - 1) * token_s
    step = flow_step_work(config.flow.estimator, workload.frames)
    linear_rate = (fp32 if recipe.flow_bits > 8 else int8) * recipe.flow_linear
    other_rate = fp32 * recipe.flow_other
    flow = SOLVER_STEPS * (
        step.linear / linear_rate + (step.attention + step.convolution) / other_rate
    )
    frames = workload.tokens * FRAMES_PER_TOKEN
    vocoder = vocoder_operations(config.vocoder, frames) / (fp32 * recipe.vocoder)
    return Prediction(
        recipe.name,
        (speech_lm + flow + vocoder) / workload.seconds,
        speech_lm,
        flow,
        vocoder,
        _resident_mb(recipe, config, workload.frames),
    )


def _resident_mb(recipe: RecipeCosts, config: CheckpointConfig, frames: int) -> float:
    """Every weight of LM and flow once, mapped or repacked, and what else is resident."""
    lm = speech_lm_weights(config.speech_lm) * recipe.lm_bits / 8
    # A multiply-add per weight and row, and a step of one frame has two rows: 4 operations.
    step = flow_step_work(config.flow.estimator, 1)
    flow = step.linear / 4 * recipe.flow_bits / 8 + step.convolution / 4 * 4  # the latter float32
    return (lm + flow) / 1e6 + _PROGRAM_MB + _ACTIVATIONS_MB_PER_FRAME * frames
