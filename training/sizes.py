"""The demo voice's sizes, in the records that networks are built from.

The whole voice has to stay under 30 MB in half precision, about 14 million parameters.
"""

from __future__ import annotations

from cosyvoice_cpu.bundle.manifest import Sampling
from cosyvoice_cpu.checkpoint.config import (
    EstimatorConfig,
    FlowConfig,
    SpeechLMConfig,
    VocoderConfig,
)
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

SAMPLE_RATE = 24000
HOP = 480  # samples per mel frame: 50 frames per second
SAMPLES_PER_TOKEN = 2 * HOP  # 25 speech tokens per second
MEL_BINS = 80
LOG_MEL_BINS = 128  # of the tokenizer's input, 100 frames per second

# 3^7 tokenizer codes and the 11 silent ids, whose largest is 2323, rounded up to a multiple of 8.
SPEECH_IDS = 2328

FLOW = FlowConfig(
    vocab_size=SPEECH_IDS,
    input_size=80,
    spk_embed_dim=192,
    output_size=80,
    token_mel_ratio=2,
    pre_lookahead_len=3,
    pre_lookahead_channels=256,
    inference_cfg_rate=1.0,  # with the original's 0.7 a word in a hundred more is wrong
    estimator=EstimatorConfig(
        dim=192,
        depth=8,
        heads=3,
        dim_head=64,
        ff_mult=2,
        mel_dim=80,
        mu_dim=80,
        spk_dim=80,
        static_chunk_size=50,
    ),
)

# The released models' own.
SAMPLING = Sampling(top_p=0.8, top_k=25, win_size=10, tau_r=0.1)

VOCODER = VocoderConfig(
    in_channels=80,
    base_channels=128,
    nb_harmonics=8,
    sampling_rate=24000,
    nsf_alpha=0.1,
    nsf_sigma=0.003,
    nsf_voiced_threshold=10,
    upsample_rates=(8, 5, 3),
    upsample_kernel_sizes=(16, 11, 7),
    istft_n_fft=16,
    istft_hop_len=4,
    resblock_kernel_sizes=(3, 7, 11),
    resblock_dilation_sizes=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    source_resblock_kernel_sizes=(7, 7, 11),
    source_resblock_dilation_sizes=((1, 3, 5), (1, 3, 5), (1, 3, 5)),
    lrelu_slope=0.1,
    audio_limit=0.99,
    conv_pre_look_right=4,
    f0_channels=128,
)


def speech_lm_config(text_rows: int) -> SpeechLMConfig:
    """The speech LM over a text table of `text_rows` rows."""
    return SpeechLMConfig(
        hidden_size=256,
        num_layers=6,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=384,
        rms_norm_eps=1e-6,
        rope_theta=1e6,
        text_vocab_size=text_rows,
        speech_token_size=SPEECH_IDS,
        speech_table_rows=SPEECH_IDS + COSYVOICE3.speech_table_extra_rows,
    )
