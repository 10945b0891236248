"""The tensors of Fun-CosyVoice3's three weight files, as they follow from the configuration.

Sources: CosyVoice cosyvoice/llm/llm.py, flow/flow.py, flow/DiT/dit.py, hifigan/generator.py and
hifigan/f0_predictor.py; the official files' 951 keys agree.
"""

from __future__ import annotations

from math import prod

from cosyvoice_cpu.checkpoint.config import (
    CheckpointConfig,
    FlowConfig,
    SpeechLMConfig,
    VocoderConfig,
)

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
