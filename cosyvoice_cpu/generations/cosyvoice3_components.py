"""The components of Fun-CosyVoice3-0.5B: what each graph takes and gives.

N tokens, T mel frames (`frames`), S positions. Audio has `samples_per_frame` samples a frame.
"""

from __future__ import annotations

from cosyvoice_cpu.generations.components import (
    CacheSpec,
    ComponentSpec,
    GraphSpec,
    LadderSpec,
    TensorSpec,
)

_REFERENCE = "cosyvoice_cpu.networks.reference"
_DEPLOYED = "cosyvoice_cpu.networks.deployed"
_SAMPLES = "frames * samples_per_frame"


def _cache(part: str) -> CacheSpec:
    shape = (1, "num_kv_heads", "positions", "head_dim")
    return CacheSpec(f"past_{part}_{{layer}}", f"present_{part}_{{layer}}", "float32", shape, 2)


_SPEECH_LM = ComponentSpec(
    name="speech_lm",
    config="speech_lm",
    checkpoint_part="speech_lm",
    key_prefix="",
    reference=f"{_REFERENCE}.speech_lm:SpeechLM",
    deployed=f"{_DEPLOYED}.speech_lm:SpeechLM",
    layers="num_layers",
    sizes={
        "hidden_size": "hidden_size",
        "num_kv_heads": "num_kv_heads",
        "head_dim": "head_dim",
        "speech_table_rows": "speech_table_rows",
    },
    graphs=(
        GraphSpec(
            variant="speech_lm",  # prefill and decode alike
            inputs=(
                TensorSpec("inputs_embeds", "float32", (1, "sequence", "hidden_size")),
                TensorSpec("rows", "int64", ("rows",)),  # positions of inputs_embeds to predict at
                TensorSpec("last_position", "int32", (1,)),  # of all that was read, from 0
                TensorSpec("total_length", "int32", (1,)),  # that plus one
            ),
            outputs=(TensorSpec("logits", "float32", ("rows", "speech_table_rows")),),
            caches=(_cache("key"), _cache("value")),
        ),
    ),
)

_FLOW_ENCODER = ComponentSpec(
    name="flow_encoder",
    config="flow",
    checkpoint_part="flow",
    key_prefix="",
    reference=f"{_REFERENCE}.flow_encoder:FlowEncoder",
    deployed=f"{_DEPLOYED}.flow_encoder:FlowEncoder",
    sizes={"speaker_embedding_size": "spk_embed_dim", "mel_bins": "output_size"},
    graphs=(
        GraphSpec(
            variant="flow_encoder",
            inputs=(
                TensorSpec("tokens", "int64", ("tokens",)),  # N and the look-ahead
                TensorSpec("known", "float32", ("tokens",)),  # 0 for what stands behind the end
                TensorSpec("embedding", "float32", (1, "speaker_embedding_size")),  # as cached
            ),
            outputs=(
                TensorSpec("mu", "float32", ("mel_bins", "frames")),
                TensorSpec("speaker", "float32", (1, "mel_bins")),
            ),
            past=2,  # tokens: the second convolution's
        ),
    ),
)


# Two rows with classifier-free guidance, row 0 conditioned and row 1 not; one without.
_FRAMES = ("rows", "mel_bins", "frames")
_HISTORY = (2, "rows", "channels", "taps_before")


def _attended_cache(place: str, part: str, *, present: bool) -> CacheSpec:
    """Keys or values of `place`; half precision, since there are as many as frames and steps."""
    return CacheSpec(
        past=f"{place}_{part}_{{layer}}",
        present=f"{part}_{{layer}}" if present else None,
        dtype="float16",
        shape=("rows", "heads", f"{place}_frames", "dim_head"),
        axis=2,
        fresh="frames",
    )


def _estimator_graph(variant: str) -> GraphSpec:
    return GraphSpec(
        variant=variant,
        inputs=(
            *(TensorSpec(name, "float32", _FRAMES) for name in ("x", "mu", "cond")),
            TensorSpec("speaker", "float32", ("rows", "mel_bins")),
            TensorSpec("step", "int64", ()),  # row of the table of times, from 0
            TensorSpec("valid_frames", "int64", (1,)),  # padding follows
        ),
        outputs=(TensorSpec("velocity", "float32", _FRAMES),),  # of no meaning in the padding
        ladder=LadderSpec("frames", first=100),
    )


_FLOW_ESTIMATOR = ComponentSpec(
    name="flow_estimator",
    config="flow.estimator",
    checkpoint_part="flow",
    key_prefix="decoder.estimator.",
    reference=f"{_REFERENCE}.flow_estimator:FlowEstimator",
    deployed=f"{_DEPLOYED}.flow_estimator:FlowEstimator",
    layers="depth",
    sizes={
        "mel_bins": "mel_dim",
        "channels": "dim",
        "heads": "heads",
        "dim_head": "dim_head",
        "taps_before": 30,  # of each position convolution
    },
    graphs=(
        _estimator_graph("full"),  # attention over all frames
        _estimator_graph("chunked"),  # over a frame's own chunk and all before it
        GraphSpec(
            variant="stream",  # the same for one chunk, what it attends to before it in caches
            inputs=(
                *(TensorSpec(name, "float32", _FRAMES) for name in ("x", "mu", "cond")),
                TensorSpec("speaker", "float32", ("rows", "mel_bins")),
                TensorSpec("step", "int64", ()),
                TensorSpec("position", "int64", (1,)),  # of the first frame, prompt included
                TensorSpec("history", "float32", _HISTORY),  # of the two position convolutions
            ),
            outputs=(
                TensorSpec("velocity", "float32", _FRAMES),
                TensorSpec("history_after", "float32", _HISTORY),
            ),
            caches=(
                *(_attended_cache("prompt", part, present=False) for part in ("key", "value")),
                *(_attended_cache("recent", part, present=True) for part in ("key", "value")),
            ),
        ),
    ),
)

_VOCODER = ComponentSpec(
    name="vocoder",
    config="vocoder",
    checkpoint_part="vocoder",
    key_prefix="",
    reference=f"{_REFERENCE}.vocoder:Vocoder",
    deployed=f"{_DEPLOYED}.vocoder:Vocoder",
    sizes={
        "mel_bins": "in_channels",
        "samples_per_frame": "samples_per_frame",
        "lookahead": "conv_pre_look_right",
        "harmonics": "harmonics",
    },
    graphs=(
        GraphSpec(
            variant="f0_predictor",
            inputs=(TensorSpec("mel", "float32", ("mel_bins", "frames_and_context")),),
            outputs=(TensorSpec("f0", "float32", ("frames",)),),  # Hz
            past=8,  # four convolutions of three frames
            arithmetic="float64",  # the phase adds an error of f0 up over the utterance
        ),
        GraphSpec(
            variant="excitation",
            inputs=(
                TensorSpec("f0", "float32", ("frames",)),
                TensorSpec("noise", "float32", (_SAMPLES, "harmonics")),  # uniform in [0, 1)
                TensorSpec("turns", "float64", (1, "harmonics")),  # of the frames before; 0 if none
            ),
            outputs=(
                TensorSpec("source", "float32", (1, _SAMPLES)),
                TensorSpec("turns_after", "float64", (1, "harmonics")),
            ),
            arithmetic="float64",  # of the phase
        ),
        GraphSpec(
            variant="generator",
            inputs=(
                # The context behind the frames is what follows, or zeros at the end.
                TensorSpec("mel", "float32", (1, "mel_bins", "frames + lookahead")),
                TensorSpec("source", "float32", (1, _SAMPLES)),
                TensorSpec("valid_frames", "int64", (1,)),
            ),
            outputs=(TensorSpec("waveform", "float32", (1, _SAMPLES)),),
            ladder=LadderSpec("frames", first=50),
            past=34,  # residual blocks of the first stage, 3 and 5 convolutions deep, most of all
        ),
    ),
)

COMPONENTS = {spec.name: spec for spec in (_SPEECH_LM, _FLOW_ENCODER, _FLOW_ESTIMATOR, _VOCODER)}
