"""The arithmetic and memory traffic of a request, from the model's sizes alone.

One multiply-add counts as two operations. What the counts leave out is small: norms, activations,
sampling, the flow's encoder, the short-time Fourier transforms.
"""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_cpu.checkpoint.config import EstimatorConfig, SpeechLMConfig, VocoderConfig

_POSITION_KERNEL, _POSITION_GROUPS = 31, 16  # the estimator's two position convolutions
_F0_KERNELS = (4, 3, 3, 3, 3)
GUIDED_BATCH = 2


@dataclass(frozen=True)
class FlowStepFlops:
    """Operations of one solver step on a guided pair."""

    linear: float  # products with weights: these can be INT8
    attention: float  # products of activations
    convolution: float  # the position convolutions

    @property
    def total(self) -> float:
        """All of them."""
        return self.linear + self.attention + self.convolution


def flow_step_flops(
    config: EstimatorConfig, frames: int, attended: int | None = None
) -> FlowStepFlops:
    """One call of the estimator with a batch of two and `frames` mel frames, which attend to
    `attended`, by default to themselves.

    The modulation by time is not in it: the graphs hold it as a table, and torch computes it for
    one row per step.
    """
    dim, width = config.dim, config.heads * config.dim_head
    block = 4 * dim * width + 2 * config.ff_mult * dim * dim  # q, k, v, out; expand, contract
    inputs = (2 * config.mel_dim + config.mu_dim + config.spk_dim) * dim
    rows = GUIDED_BATCH * frames
    linear = 2.0 * rows * (config.depth * block + inputs + dim * config.mel_dim)
    attention = 4.0 * rows * (attended or frames) * width * config.depth
    kernel = _POSITION_KERNEL * dim // _POSITION_GROUPS
    return FlowStepFlops(linear, attention, 2 * 2.0 * rows * dim * kernel)


def speech_lm_weights(config: SpeechLMConfig) -> int:
    """Numbers that one decoded token reads: all layers and the head, embeddings apart."""
    kv_width = config.num_kv_heads * config.head_dim
    attention = config.hidden_size * (2 * config.hidden_size + 2 * kv_width)
    mlp = 3 * config.hidden_size * config.intermediate_size
    return config.num_layers * (attention + mlp) + config.hidden_size * config.speech_table_rows


def prefill_flops(config: SpeechLMConfig, positions: int) -> float:
    """Operations to read `positions` rows: the layers for each, the head for the last."""
    head = config.hidden_size * config.speech_table_rows
    layers = speech_lm_weights(config) - head
    attention = 2.0 * positions * positions * config.hidden_size * config.num_layers
    return 2.0 * positions * layers + 2.0 * head + attention


def vocoder_flops(config: VocoderConfig, frames: int) -> float:
    """Operations to turn `frames` mel frames into samples, f0 predictor included."""
    widths = [config.base_channels >> n for n in range(len(config.upsample_rates) + 1)]
    bins = config.istft_n_fft + 2
    per_frame = float(config.in_channels * widths[0] * (config.conv_pre_look_right + 1))
    length = 1  # steps of the current stage per mel frame
    for stage, rate in enumerate(config.upsample_rates):
        wide, width = widths[stage], widths[stage + 1]
        length *= rate
        remaining = 1
        for later in config.upsample_rates[stage + 1 :]:
            remaining *= later
        per_frame += length * wide * width * config.upsample_kernel_sizes[stage]
        down_kernel = 2 * remaining if remaining > 1 else 1
        per_frame += length * bins * width * down_kernel
        blocks = list(
            zip(config.resblock_kernel_sizes, config.resblock_dilation_sizes, strict=True)
        )
        blocks.append(
            (
                config.source_resblock_kernel_sizes[stage],
                config.source_resblock_dilation_sizes[stage],
            )
        )
        for kernel, dilations in blocks:
            per_frame += length * 2 * len(dilations) * kernel * width * width
    per_frame += length * widths[-1] * bins * 7  # conv_post
    channels = config.in_channels
    for kernel in _F0_KERNELS:
        per_frame += kernel * channels * config.f0_channels
        channels = config.f0_channels
    return 2.0 * per_frame * frames
