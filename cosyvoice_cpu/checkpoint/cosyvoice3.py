"""The adapter of Fun-CosyVoice3: what its YAML and `config.json` decide, read and checked.

Sources: CosyVoice examples/libritts/cosyvoice3/conf/cosyvoice3.yaml for the entries' names;
cosyvoice/llm/llm.py, flow/flow.py, flow/DiT/dit.py and hifigan/generator.py for what the networks
rely on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cosyvoice_cpu.bundle.manifest import MelSettings, Sampling
from cosyvoice_cpu.checkpoint.config import (
    CheckpointConfig,
    EstimatorConfig,
    FlowConfig,
    SpeechLMConfig,
    VocoderConfig,
)
from cosyvoice_cpu.checkpoint.sections import MAX_LAYERS, Section
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

MODEL_CLASSES = {
    "llm": "cosyvoice.llm.llm.CosyVoice3LM",
    "flow": "cosyvoice.flow.flow.CausalMaskedDiffWithDiT",
    "hift": "cosyvoice.hifigan.generator.CausalHiFTGenerator",
}

SPEAKER_EMBEDDING_DIM = 192  # what campplus.onnx yields

_COUNTERS = {r"epoch|step": "a training snapshot's counters"}
SKIPPED_KEYS: dict[str, dict[str, str]] = {
    "speech_lm": {
        **_COUNTERS,
        r"llm\.model\.lm_head\.weight": "tied to embed_tokens; its scores are never used",
        r"llm\.model\.model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq": (
            "follows from rope_theta"
        ),
    },
    "flow": {
        **_COUNTERS,
        r"decoder\.estimator\.rotary_embed\.inv_freq": "10000^(-i/32), follows from dim_head",
    },
    "vocoder": {
        **_COUNTERS,
        r"discriminator\..+": "serves the GAN training only",
    },
}


def read_config(yaml_file: Path, tree: dict[str, Any], text_model: Section) -> CheckpointConfig:
    """Everything that sizes the networks; `tree` is the YAML, `text_model` the `config.json`.

    Raises CheckpointError naming the entry that is missing, of the wrong type, or in contradiction
    to another entry that the networks rely on.
    """
    root = Section(yaml_file, tree)
    for key, name in MODEL_CLASSES.items():
        root.require_target(key, name)
    mel = _mel(root)
    sample_rate = root.integer("sample_rate")
    token_frame_rate = root.integer("token_frame_rate")
    config = CheckpointConfig(
        sample_rate=sample_rate,
        token_frame_rate=token_frame_rate,
        speech_lm=_speech_lm(root.section("llm"), text_model),
        sampling=_sampling(root.section("llm")),
        flow=_flow(root.section("flow"), mel),
        vocoder=_vocoder(root.section("hift"), mel, sample_rate),
        mel=mel,
    )
    root.section("llm").require("speech_token_size", config.flow.vocab_size)
    frame_rate = token_frame_rate * config.flow.token_mel_ratio
    if frame_rate * mel.hop != sample_rate:
        raise root.fail(
            "feat_extractor.hop_size",
            f"is {mel.hop}; {frame_rate} frames per second at {sample_rate} Hz need "
            f"{sample_rate / frame_rate:g}",
        )
    return config


def _mel(root: Section) -> MelSettings:
    mel = root.section("feat_extractor")
    mel.require("sampling_rate", root.integer("sample_rate"))
    mel.require("center", False)
    n_fft = mel.integer("n_fft")
    mel.require("win_size", n_fft)
    return MelSettings(
        n_fft=n_fft,
        hop=mel.integer("hop_size"),
        win=n_fft,
        num_mels=mel.integer("num_mels"),
        fmin=mel.number("fmin"),
        fmax=None if mel.value("fmax") is None else mel.number("fmax"),
    )


def _speech_lm(llm: Section, text_model: Section) -> SpeechLMConfig:
    for key, expected in (
        ("model_type", "qwen2"),
        ("hidden_act", "silu"),
        ("tie_word_embeddings", True),
    ):
        text_model.require(key, expected)
    for key in ("rope_scaling", "use_sliding_window"):
        if text_model.values.get(key):
            raise text_model.fail(key, "is set; this model's attention has neither")
    config = SpeechLMConfig(
        hidden_size=text_model.integer("hidden_size"),
        num_layers=text_model.integer("num_hidden_layers", MAX_LAYERS),
        num_heads=text_model.integer("num_attention_heads"),
        num_kv_heads=text_model.integer("num_key_value_heads"),
        intermediate_size=text_model.integer("intermediate_size"),
        rms_norm_eps=text_model.number("rms_norm_eps"),
        rope_theta=text_model.number("rope_theta"),
        text_vocab_size=text_model.integer("vocab_size"),
        speech_token_size=llm.integer("speech_token_size"),
        speech_table_rows=llm.integer("speech_token_size") + COSYVOICE3.speech_table_extra_rows,
    )
    if config.hidden_size % config.num_heads or config.head_dim % 8:
        raise text_model.fail(
            "hidden_size",
            f"is {config.hidden_size}; {config.num_heads} heads need a multiple of 8 each",
        )
    if config.num_heads % config.num_kv_heads:
        raise text_model.fail(
            "num_key_value_heads",
            f"is {config.num_kv_heads} and does not divide the {config.num_heads} heads",
        )
    llm.require("llm_input_size", config.hidden_size)
    llm.require("llm_output_size", config.hidden_size)
    return config


def _sampling(llm: Section) -> Sampling:
    llm.require_target("sampling", "cosyvoice.utils.common.ras_sampling")
    sampling = llm.section("sampling")
    return Sampling(
        top_p=sampling.number("top_p"),
        top_k=sampling.integer("top_k"),
        win_size=sampling.integer("win_size"),
        tau_r=sampling.number("tau_r"),
    )


def _flow(flow: Section, mel: MelSettings) -> FlowConfig:
    flow.require("output_size", mel.num_mels)
    flow.require("input_size", mel.num_mels)  # the embedding is added to as wide a condition
    flow.require("spk_embed_dim", SPEAKER_EMBEDDING_DIM)
    lookahead = flow.section("pre_lookahead_layer")
    lookahead.require("in_channels", flow.integer("input_size"))
    lookahead.require("pre_lookahead_len", flow.integer("pre_lookahead_len"))
    decoder = flow.section("decoder")
    cfm = decoder.section("cfm_params").section("content")
    cfm.require("solver", "euler")
    cfm.require("t_scheduler", "cosine")
    return FlowConfig(
        vocab_size=flow.integer("vocab_size"),
        input_size=flow.integer("input_size"),
        spk_embed_dim=flow.integer("spk_embed_dim"),
        output_size=flow.integer("output_size"),
        token_mel_ratio=flow.integer("token_mel_ratio"),
        pre_lookahead_len=flow.integer("pre_lookahead_len"),
        pre_lookahead_channels=lookahead.integer("channels"),
        inference_cfg_rate=cfm.number("inference_cfg_rate"),
        estimator=_estimator(decoder.section("estimator"), mel),
    )


def _estimator(dit: Section, mel: MelSettings) -> EstimatorConfig:
    for key in ("mel_dim", "mu_dim", "spk_dim", "out_channels"):
        dit.require(key, mel.num_mels)
    config = EstimatorConfig(
        dim=dit.integer("dim"),
        depth=dit.integer("depth", MAX_LAYERS),
        heads=dit.integer("heads"),
        dim_head=dit.integer("dim_head"),
        ff_mult=dit.integer("ff_mult"),
        mel_dim=mel.num_mels,
        mu_dim=mel.num_mels,
        spk_dim=mel.num_mels,
        static_chunk_size=dit.integer("static_chunk_size"),
    )
    if config.dim != config.heads * config.dim_head:
        raise dit.fail(
            "dim", f"is {config.dim}; {config.heads} heads of {config.dim_head} need their product"
        )
    if config.dim_head % 8:
        raise dit.fail("dim_head", f"is {config.dim_head}; it should be a multiple of 8")
    groups = config.POSITION_GROUPS
    if config.dim % groups:
        raise dit.fail("dim", f"is {config.dim}; it should be a multiple of {groups}")
    return config


def _vocoder(hift: Section, mel: MelSettings, sample_rate: int) -> VocoderConfig:
    hift.require("in_channels", mel.num_mels)
    hift.require("sampling_rate", sample_rate)
    istft = hift.section("istft_params")
    f0 = hift.section("f0_predictor")
    f0.require("num_class", 1)
    f0.require("in_channels", mel.num_mels)
    config = VocoderConfig(
        in_channels=mel.num_mels,
        base_channels=hift.integer("base_channels"),
        nb_harmonics=hift.integer("nb_harmonics"),
        sampling_rate=sample_rate,
        nsf_alpha=hift.number("nsf_alpha"),
        nsf_sigma=hift.number("nsf_sigma"),
        nsf_voiced_threshold=hift.number("nsf_voiced_threshold"),
        upsample_rates=hift.integers("upsample_rates"),
        upsample_kernel_sizes=hift.integers("upsample_kernel_sizes"),
        istft_n_fft=istft.integer("n_fft"),
        istft_hop_len=istft.integer("hop_len"),
        resblock_kernel_sizes=hift.integers("resblock_kernel_sizes"),
        resblock_dilation_sizes=hift.integer_lists("resblock_dilation_sizes"),
        source_resblock_kernel_sizes=hift.integers("source_resblock_kernel_sizes"),
        source_resblock_dilation_sizes=hift.integer_lists("source_resblock_dilation_sizes"),
        lrelu_slope=hift.number("lrelu_slope"),
        audio_limit=hift.number("audio_limit"),
        conv_pre_look_right=hift.integer("conv_pre_look_right"),
        f0_channels=f0.integer("cond_channels"),
    )
    _check_stages(hift, config)
    if config.samples_per_frame != mel.hop:
        raise hift.fail(
            "upsample_rates",
            f"and hop_len make {config.samples_per_frame} samples per frame, not {mel.hop}",
        )
    if config.istft_n_fft % 2 or config.istft_n_fft % config.istft_hop_len:
        raise hift.fail(
            "istft_params.n_fft",
            f"is {config.istft_n_fft}; it should be even and a multiple of hop_len",
        )
    return config


def _check_stages(hift: Section, config: VocoderConfig) -> None:
    stages = len(config.upsample_rates)
    lengths = {
        "upsample_kernel_sizes": (len(config.upsample_kernel_sizes), stages),
        "source_resblock_kernel_sizes": (len(config.source_resblock_kernel_sizes), stages),
        "source_resblock_dilation_sizes": (len(config.source_resblock_dilation_sizes), stages),
        "resblock_dilation_sizes": (
            len(config.resblock_dilation_sizes),
            len(config.resblock_kernel_sizes),
        ),
    }
    for key, (length, expected) in lengths.items():
        if length != expected:
            raise hift.fail(key, f"has {length} entries; it should have {expected}")
    for rate, kernel in zip(config.upsample_rates, config.upsample_kernel_sizes, strict=True):
        if kernel < rate:
            raise hift.fail("upsample_kernel_sizes", f"has {kernel}, below its rate {rate}")
    if config.base_channels % 2**stages:
        raise hift.fail(
            "base_channels", f"is {config.base_channels} and can't be halved {stages} times"
        )
