"""The released sizes of Fun-CosyVoice3, and a tiny model of the same settings."""

from __future__ import annotations

from cosyvoice_cpu.bundle.manifest import MelSettings, Sampling
from cosyvoice_cpu.checkpoint.config import (
    CheckpointConfig,
    EstimatorConfig,
    FlowConfig,
    SpeechLMConfig,
    VocoderConfig,
)

_DILATIONS = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
_MEL_BINS = 80


def _config(
    lm: SpeechLMConfig, lookahead_channels: int, estimator: EstimatorConfig, vocoder_channels: int
) -> CheckpointConfig:
    """The official settings around the four sizes that differ between the presets."""
    flow = FlowConfig(
        vocab_size=lm.speech_token_size,
        input_size=_MEL_BINS,
        spk_embed_dim=192,
        output_size=_MEL_BINS,
        token_mel_ratio=2,
        pre_lookahead_len=3,
        pre_lookahead_channels=lookahead_channels,
        inference_cfg_rate=0.7,
        estimator=estimator,
    )
    vocoder = VocoderConfig(
        in_channels=_MEL_BINS,
        base_channels=vocoder_channels,
        nb_harmonics=8,
        sampling_rate=24000,
        nsf_alpha=0.1,
        nsf_sigma=0.003,
        nsf_voiced_threshold=10.0,
        upsample_rates=(8, 5, 3),
        upsample_kernel_sizes=(16, 11, 7),
        istft_n_fft=16,
        istft_hop_len=4,
        resblock_kernel_sizes=(3, 7, 11),
        resblock_dilation_sizes=_DILATIONS,
        source_resblock_kernel_sizes=(7, 7, 11),
        source_resblock_dilation_sizes=_DILATIONS,
        lrelu_slope=0.1,
        audio_limit=0.99,
        conv_pre_look_right=4,
        f0_channels=vocoder_channels,
    )
    return CheckpointConfig(
        sample_rate=24000,
        token_frame_rate=25,
        speech_lm=lm,
        sampling=Sampling(top_p=0.8, top_k=25, win_size=10, tau_r=0.1),
        flow=flow,
        vocoder=vocoder,
        mel=MelSettings(
            n_fft=1920,
            hop=480,
            win=1920,
            num_mels=_MEL_BINS,
            fmin=0.0,
            fmax=None,
        ),
    )


def _estimator(dim: int, depth: int) -> EstimatorConfig:
    return EstimatorConfig(
        dim=dim,
        depth=depth,
        heads=dim // 64,
        dim_head=64,
        ff_mult=2,
        mel_dim=_MEL_BINS,
        mu_dim=_MEL_BINS,
        spk_dim=_MEL_BINS,
        static_chunk_size=50,
    )


FULL = _config(
    SpeechLMConfig(
        hidden_size=896,
        num_layers=24,
        num_heads=14,
        num_kv_heads=2,
        intermediate_size=4864,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        text_vocab_size=151936,
        speech_token_size=6561,
        speech_table_rows=6761,
    ),
    lookahead_channels=1024,
    estimator=_estimator(dim=1024, depth=22),
    vocoder_channels=512,
)

TINY = _config(
    SpeechLMConfig(
        hidden_size=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=128,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        text_vocab_size=1024,
        speech_token_size=2400,  # room for every silent id of the generation
        speech_table_rows=2600,
    ),
    lookahead_channels=64,
    estimator=_estimator(dim=128, depth=2),
    vocoder_channels=64,
)
