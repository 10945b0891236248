"""Checkpoints of random weights in the official layout, full size or tiny.

For tests, benches and size figures without the official download: the files, key names, shapes and
the two ONNX models' signatures are the official ones, the speech is noise. The weights are scaled
so that every stage behaves as with trained ones: activations of order one, a log-mel in the range
of speech, f0 in the range of voices, a waveform neither silent nor clipped. Stop ids are never
drawn, so the minimum and maximum token counts alone set the length.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from cosyvoice_cpu.bundle.atomic import is_disk_full, output_error, partial_name
from cosyvoice_cpu.checkpoint.config import (
    CheckpointConfig,
    EstimatorConfig,
    FlowConfig,
    MelConfig,
    SamplingConfig,
    SpeechLMConfig,
    VocoderConfig,
)
from cosyvoice_cpu.checkpoint.synthetic_front_end import (
    save_speaker_encoder,
    save_speech_tokenizer,
)
from cosyvoice_cpu.checkpoint.synthetic_text import (
    official_json,
    official_yaml,
    write_text_tokenizer,
)
from cosyvoice_cpu.checkpoint.synthetic_weights import flow_state, speech_lm_state, vocoder_state
from cosyvoice_cpu.errors import MissingExtraError, OutputError, UsageError
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3

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
        sampling=SamplingConfig(top_p=0.8, top_k=25, win_size=10, tau_r=0.1),
        flow=flow,
        vocoder=vocoder,
        mel=MelConfig(
            sampling_rate=24000,
            n_fft=1920,
            hop_size=480,
            win_size=1920,
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

_SIZES = {"full": FULL, "tiny": TINY}


def make_synthetic_checkpoint(
    folder: Path,
    *,
    size: Literal["full", "tiny"] | CheckpointConfig,
    seed: int = 0,
    front_end: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write a Fun-CosyVoice3 checkpoint of random weights to `folder`, whole or not at all.

    The same `size` and `seed` give the same files byte for byte, with one version of torch and
    onnx. Without `front_end` the ONNX models and the text vocabulary are left out. `progress` is
    called with the name of each file before it is written. Full size takes 3.4 GB on disk.
    Returns `folder`.
    Raises UsageError for an unknown size or a folder that is not empty, OutputError where it can't
    be written, MissingExtraError without torch or onnx.
    """
    config = _SIZES.get(size) if isinstance(size, str) else size
    if config is None:
        raise UsageError(f"unknown size {size!r}", f"known sizes: {', '.join(_SIZES)}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists and is not an empty folder", "give another name")
    _require_torch()
    partial = folder.parent / partial_name(folder.name)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir()
        try:
            _write(partial, config, seed, front_end, progress or (lambda file: None))
            partial.replace(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise output_error(folder, error) from error
    except RuntimeError as error:  # torch's own writer has no other class for a full disk
        if is_disk_full(error) or "PytorchStreamWriter" in str(error):
            raise OutputError(f"{folder} can't be written: {error}", "free some space") from error
        raise
    return folder


def _require_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingExtraError(
            "making a checkpoint needs PyTorch", 'pip install "cosyvoice-cpu[export]"'
        ) from None


def _write(
    folder: Path,
    config: CheckpointConfig,
    seed: int,
    front_end: bool,
    progress: Callable[[str], None],
) -> None:
    import torch

    generation = COSYVOICE3
    text_folder = folder / generation.text_folder
    text_folder.mkdir()
    (folder / generation.yaml_file).write_text(official_yaml(config), encoding="utf-8")
    (text_folder / "config.json").write_text(
        json.dumps(official_json(config.speech_lm), indent=2) + "\n", encoding="utf-8"
    )
    # One state dict at a time: the next is made when the one before is on disk and freed.
    states = (
        (generation.speech_lm_files["base"], speech_lm_state),
        (generation.flow_file, flow_state),
        (generation.vocoder_file, vocoder_state),
    )
    for file, make_state in states:
        progress(file)
        torch.save(make_state(config, seed), folder / file)
    if front_end:
        progress(generation.speaker_encoder_file)
        save_speaker_encoder(folder / generation.speaker_encoder_file, config, seed)
        progress(generation.speech_tokenizer_file)
        save_speech_tokenizer(folder / generation.speech_tokenizer_file, config, seed)
        progress(generation.text_folder)
        write_text_tokenizer(
            text_folder, config.speech_lm.text_vocab_size, generation.special_tokens
        )
