"""The least time that a stage's work takes on a machine with given ceilings."""

from __future__ import annotations

from pathlib import Path

from cosyvoice_cpu.bundle.manifest import Component
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.flops import (
    flow_step_work,
    prefill_operations,
    speech_lm_weights,
    vocoder_operations,
)
from cosyvoice_cpu.evaluation.bench.peak_throughput import Ceilings
from cosyvoice_cpu.evaluation.bench.workload import FRAMES_PER_TOKEN, SOLVER_STEPS, Workload

_EMBEDDINGS = "text_embedding"


def stage_bounds(
    spec: EngineSpec, config: CheckpointConfig, workload: Workload, ceilings: Ceilings
) -> dict[str, float]:
    """Seconds that `speech_lm`, `flow` and `vocoder` of a request take at least.

    Products with weights at the ceiling of their precision, all else in float32 (BF16 where that is
    how the row computes); a decoded token reads every weight of the LM once. Empty if a ceiling
    was not measured.
    """
    fp32 = ceilings.fp32_gflops * 1e9
    int8 = ceilings.int8_gops * 1e9
    other = fp32  # what is not a product with weights
    if spec.variant == "bfloat16":
        if ceilings.bf16_gflops is None:
            return {}
        other = ceilings.bf16_gflops * 1e9
    bits = _weight_bits(spec)
    flow = flow_step_work(config.flow.estimator, workload.frames)
    linear_rate = int8 if bits["flow_estimator"] <= 8 else other
    step = flow.linear / linear_rate + (flow.attention + flow.convolution) / other
    bytes_per_token = speech_lm_weights(config.speech_lm) * bits["speech_lm"] / 8
    prefill_rate = int8 if bits["speech_lm"] <= 8 else other
    prefill = prefill_operations(config.speech_lm, workload.prefill_positions) / prefill_rate
    decode = (workload.tokens - 1) * bytes_per_token / (ceilings.read_gb_s * 1e9)
    frames = workload.tokens * FRAMES_PER_TOKEN
    return {
        "speech_lm": prefill + decode,
        "flow": SOLVER_STEPS * step,
        "vocoder": vocoder_operations(config.vocoder, frames) / fp32,
    }


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
