"""Fun-CosyVoice3: what its YAML and `config.json` decide, and which tensors follow from that.

Sources: CosyVoice examples/libritts/cosyvoice3/conf/cosyvoice3.yaml for the entries' names;
cosyvoice/llm/llm.py, flow/flow.py, flow/DiT/dit.py, hifigan/generator.py and
hifigan/f0_predictor.py for what the networks rely on and what they store.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from cosyvoice_cpu.checkpoint.config import (
    CheckpointConfig,
    EstimatorConfig,
    FlowConfig,
    MelConfig,
    SamplingConfig,
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
TIME_FREQUENCIES = 256  # sines and cosines of the time embedding (flow/DiT/modules.py)
POSITION_CONV_KERNEL, POSITION_CONV_GROUPS = 31, 16  # CausalConvPositionEmbedding
CONV_POST_KERNEL = 7
F0_KERNELS = {0: 4, 2: 3, 4: 3, 6: 3, 8: 3}  # condnet index to kernel; ELUs stand between

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

Shapes = dict[str, tuple[int, ...]]


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
    if frame_rate * mel.hop_size != sample_rate:
        raise root.fail(
            "feat_extractor.hop_size",
            f"is {mel.hop_size}; {frame_rate} frames per second at {sample_rate} Hz need "
            f"{sample_rate / frame_rate:g}",
        )
    return config


def _mel(root: Section) -> MelConfig:
    mel = root.section("feat_extractor")
    mel.require("sampling_rate", root.integer("sample_rate"))
    mel.require("center", False)
    n_fft = mel.integer("n_fft")
    mel.require("win_size", n_fft)
    return MelConfig(
        sampling_rate=mel.integer("sampling_rate"),
        n_fft=n_fft,
        hop_size=mel.integer("hop_size"),
        win_size=n_fft,
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


def _sampling(llm: Section) -> SamplingConfig:
    llm.require_target("sampling", "cosyvoice.utils.common.ras_sampling")
    sampling = llm.section("sampling")
    return SamplingConfig(
        top_p=sampling.number("top_p"),
        top_k=sampling.integer("top_k"),
        win_size=sampling.integer("win_size"),
        tau_r=sampling.number("tau_r"),
    )


def _flow(flow: Section, mel: MelConfig) -> FlowConfig:
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


def _estimator(dit: Section, mel: MelConfig) -> EstimatorConfig:
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
    if config.dim % POSITION_CONV_GROUPS:
        raise dit.fail("dim", f"is {config.dim}; it should be a multiple of {POSITION_CONV_GROUPS}")
    return config


def _vocoder(hift: Section, mel: MelConfig, sample_rate: int) -> VocoderConfig:
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
    if config.samples_per_frame != mel.hop_size:
        raise hift.fail(
            "upsample_rates",
            f"and hop_len make {config.samples_per_frame} samples per frame, not {mel.hop_size}",
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


def expected_tensors(config: CheckpointConfig) -> dict[str, Shapes]:
    """Official key to shape per part, skipped keys left out; follows from `config` alone.

    The vocoder's keys carry no `generator.` prefix; normalized convolutions keep magnitude
    `original0 [out, 1, 1]` and direction `original1 [out, in, kernel]`.
    """
    return {
        "speech_lm": _speech_lm_shapes(config.speech_lm),
        "flow": _flow_shapes(config.flow),
        "vocoder": _vocoder_shapes(config.vocoder),
    }


def _linear(name: str, inputs: int, outputs: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (outputs, inputs)}
    return shapes | {f"{name}.bias": (outputs,)} if bias else shapes


def _conv(name: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs, kernel), f"{name}.bias": (outputs,)}


def _normed_conv(name: str, inputs: int, outputs: int, kernel: int) -> Shapes:
    weight = f"{name}.parametrizations.weight"
    return {
        f"{name}.bias": (outputs,),
        f"{weight}.original0": (outputs, 1, 1),
        f"{weight}.original1": (outputs, inputs, kernel),
    }


def _speech_lm_shapes(lm: SpeechLMConfig) -> Shapes:
    hidden, kv = lm.hidden_size, lm.num_kv_heads * lm.head_dim
    shapes: Shapes = {
        "llm.model.model.embed_tokens.weight": (lm.text_vocab_size, hidden),
        "llm.model.model.norm.weight": (hidden,),
        "llm_decoder.weight": (lm.speech_table_rows, hidden),
        "speech_embedding.weight": (lm.speech_table_rows, hidden),
    }
    for index in range(lm.num_layers):
        layer = f"llm.model.model.layers.{index}"
        shapes |= _linear(f"{layer}.self_attn.q_proj", hidden, hidden)
        shapes |= _linear(f"{layer}.self_attn.k_proj", hidden, kv)
        shapes |= _linear(f"{layer}.self_attn.v_proj", hidden, kv)
        shapes |= _linear(f"{layer}.self_attn.o_proj", hidden, hidden, bias=False)
        shapes |= _linear(f"{layer}.mlp.gate_proj", hidden, lm.intermediate_size, bias=False)
        shapes |= _linear(f"{layer}.mlp.up_proj", hidden, lm.intermediate_size, bias=False)
        shapes |= _linear(f"{layer}.mlp.down_proj", lm.intermediate_size, hidden, bias=False)
        shapes[f"{layer}.input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
    return shapes


def _flow_shapes(flow: FlowConfig) -> Shapes:
    dit, dim = flow.estimator, flow.estimator.dim
    root = "decoder.estimator"
    inputs = 2 * dit.mel_dim + dit.mu_dim + dit.spk_dim  # x, cond, mu, speaker
    group = dim // POSITION_CONV_GROUPS
    shapes: Shapes = {"input_embedding.weight": (flow.vocab_size, flow.input_size)}
    shapes |= _linear("spk_embed_affine_layer", flow.spk_embed_dim, flow.output_size)
    shapes |= _conv(
        "pre_lookahead_layer.conv1",
        flow.input_size,
        flow.pre_lookahead_channels,
        flow.pre_lookahead_len + 1,
    )
    shapes |= _conv("pre_lookahead_layer.conv2", flow.pre_lookahead_channels, flow.input_size, 3)
    shapes |= _linear(f"{root}.time_embed.time_mlp.0", TIME_FREQUENCIES, dim)
    shapes |= _linear(f"{root}.time_embed.time_mlp.2", dim, dim)
    shapes |= _linear(f"{root}.input_embed.proj", inputs, dim)
    for conv in ("conv1", "conv2"):
        name = f"{root}.input_embed.conv_pos_embed.{conv}.0"
        shapes |= _conv(name, group, dim, POSITION_CONV_KERNEL)
    for index in range(dit.depth):
        block = f"{root}.transformer_blocks.{index}"
        shapes |= _linear(f"{block}.attn_norm.linear", dim, 6 * dim)
        for projection in ("to_q", "to_k", "to_v", "to_out.0"):
            shapes |= _linear(f"{block}.attn.{projection}", dim, dim)
        shapes |= _linear(f"{block}.ff.ff.0.0", dim, dit.ff_mult * dim)
        shapes |= _linear(f"{block}.ff.ff.2", dit.ff_mult * dim, dim)
    shapes |= _linear(f"{root}.norm_out.linear", dim, 2 * dim)
    shapes |= _linear(f"{root}.proj_out", dim, dit.mel_dim)
    return shapes


def _vocoder_shapes(voc: VocoderConfig) -> Shapes:
    spectrum = voc.istft_n_fft + 2  # real and imaginary, or magnitude and phase
    base, kernels = voc.base_channels, len(voc.resblock_kernel_sizes)
    shapes = _linear("m_source.l_linear", voc.nb_harmonics + 1, 1)
    shapes |= _normed_conv("conv_pre", voc.in_channels, base, voc.conv_pre_look_right + 1)
    for stage, kernel in enumerate(voc.upsample_kernel_sizes):
        channels = base >> (stage + 1)
        shapes |= _normed_conv(f"ups.{stage}", 2 * channels, channels, kernel)
        stride = prod(voc.upsample_rates[stage + 1 :])  # down to the rate of this stage
        shapes |= _conv(
            f"source_downs.{stage}", spectrum, channels, 2 * stride if stride > 1 else 1
        )
        shapes |= _resblock(
            f"source_resblocks.{stage}",
            channels,
            voc.source_resblock_kernel_sizes[stage],
            len(voc.source_resblock_dilation_sizes[stage]),
        )
        for index, size in enumerate(voc.resblock_kernel_sizes):
            name = f"resblocks.{stage * kernels + index}"
            shapes |= _resblock(name, channels, size, len(voc.resblock_dilation_sizes[index]))
    last = base >> len(voc.upsample_rates)
    shapes |= _normed_conv("conv_post", last, spectrum, CONV_POST_KERNEL)
    for index, kernel in F0_KERNELS.items():
        inputs = voc.in_channels if index == 0 else voc.f0_channels
        shapes |= _normed_conv(f"f0_predictor.condnet.{index}", inputs, voc.f0_channels, kernel)
    return shapes | _linear("f0_predictor.classifier", voc.f0_channels, 1)


def _resblock(name: str, channels: int, kernel: int, depth: int) -> Shapes:
    shapes: Shapes = {}
    for half in ("1", "2"):
        for index in range(depth):
            shapes |= _normed_conv(f"{name}.convs{half}.{index}", channels, channels, kernel)
            shapes[f"{name}.activations{half}.{index}.alpha"] = (channels,)
    return shapes
