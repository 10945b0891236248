"""What a checkpoint's YAML and `config.json` say, as data that networks and graphs are built from.

No torch here: exporters, synthetic checkpoints and documents read the same dataclasses.
Field names follow the official YAML where it has one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cosyvoice_cpu.bundle.manifest import MelSettings, Sampling


@dataclass(frozen=True)
class SpeechLMConfig:
    """Qwen2 decoder over text and speech embeddings.

    Source: CosyVoice cosyvoice/llm/llm.py (CosyVoice3LM) and CosyVoice-BlankEN/config.json.
    """

    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    intermediate_size: int
    rms_norm_eps: float
    rope_theta: float
    text_vocab_size: int
    speech_token_size: int  # V: ids 0..V-1 are speech, V.. are special
    speech_table_rows: int  # V + 200 in generation 3

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class EstimatorConfig:
    """DiT flow estimator (cosyvoice/flow/DiT/dit.py)."""

    POSITION_GROUPS: ClassVar[int] = 16  # of the position convolutions; no entry of the YAML

    dim: int
    depth: int
    heads: int
    dim_head: int
    ff_mult: int
    mel_dim: int
    mu_dim: int
    spk_dim: int
    static_chunk_size: int  # mel frames per chunk of the streaming mask


@dataclass(frozen=True)
class FlowConfig:
    """Token embedding, look-ahead layer and the conditional flow-matching solver's settings."""

    vocab_size: int
    input_size: int
    spk_embed_dim: int
    output_size: int  # mel bins
    token_mel_ratio: int
    pre_lookahead_len: int  # tokens
    pre_lookahead_channels: int
    inference_cfg_rate: float
    estimator: EstimatorConfig


@dataclass(frozen=True)
class VocoderConfig:
    """Causal HiFT generator (cosyvoice/hifigan/generator.py, CausalHiFTGenerator)."""

    in_channels: int
    base_channels: int
    nb_harmonics: int  # overtones; the source has nb_harmonics + 1 sines
    sampling_rate: int
    nsf_alpha: float
    nsf_sigma: float
    nsf_voiced_threshold: float  # Hz
    upsample_rates: tuple[int, ...]
    upsample_kernel_sizes: tuple[int, ...]
    istft_n_fft: int
    istft_hop_len: int
    resblock_kernel_sizes: tuple[int, ...]
    resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    source_resblock_kernel_sizes: tuple[int, ...]
    source_resblock_dilation_sizes: tuple[tuple[int, ...], ...]
    lrelu_slope: float
    audio_limit: float
    conv_pre_look_right: int  # mel frames
    f0_channels: int

    @property
    def harmonics(self) -> int:
        """Sine waves of the source, the fundamental included (9)."""
        return self.nb_harmonics + 1

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per mel frame (480)."""
        product = self.istft_hop_len
        for rate in self.upsample_rates:
            product *= rate
        return product


@dataclass(frozen=True)
class CheckpointConfig:
    """Everything that an official YAML and `CosyVoice-BlankEN/config.json` decide."""

    sample_rate: int
    token_frame_rate: int  # speech tokens per second
    speech_lm: SpeechLMConfig
    sampling: Sampling
    flow: FlowConfig
    vocoder: VocoderConfig
    mel: MelSettings  # of the prompt, matcha.utils.audio.mel_spectrogram
