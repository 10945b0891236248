"""Checkpoints of random weights in the official layout, full size or tiny.

For tests, benches and size figures without the official download: the files, key names, shapes and
the two ONNX models' signatures are the official ones, the speech is noise. The weights are scaled
so that every stage behaves as with trained ones: activations of order one, a log-mel in the range
of speech, f0 in the range of voices, a waveform neither silent nor clipped. Stop ids are never
drawn, so the minimum and maximum token counts alone set the length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from cosyvoice_cpu.bundle.atomic import is_disk_full, output_error
from cosyvoice_cpu.bundle.stale_files import partial_folder
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.checkpoint.sizes import FULL, TINY
from cosyvoice_cpu.checkpoint.synthetic_front_end import (
    save_speaker_encoder,
    save_speech_tokenizer,
)
from cosyvoice_cpu.checkpoint.synthetic_text import (
    official_json,
    official_yaml,
    write_text_tokenizer,
)
from cosyvoice_cpu.errors import OutputError, UsageError, library_error
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.progress import Notify, no_notice

_SIZES = {"full": FULL, "tiny": TINY}


def make_synthetic_checkpoint(
    folder: Path,
    *,
    size: Literal["full", "tiny"] | CheckpointConfig,
    seed: int = 0,
    front_end: bool = True,
    notify: Notify = no_notice,
) -> Path:
    """Write a Fun-CosyVoice3 checkpoint of random weights to `folder`, whole or not at all.

    The same `size` and `seed` give the same files byte for byte, with one version of torch and
    onnx. Without `front_end` the ONNX models and the text vocabulary are left out. `notify` is
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
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with partial_folder(folder) as partial:
            _write(partial, config, seed, front_end, notify)
            partial.replace(folder)
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
    except ImportError as error:
        raise library_error(error, "making a checkpoint needs PyTorch") from None


def _write(
    folder: Path,
    config: CheckpointConfig,
    seed: int,
    front_end: bool,
    notify: Notify,
) -> None:
    import torch

    from cosyvoice_cpu.networks.synthetic_weights import synthetic_tensors

    generation = COSYVOICE3
    text_folder = folder / generation.text_folder
    text_folder.mkdir()
    (folder / generation.yaml_file).write_text(official_yaml(config), encoding="utf-8")
    (text_folder / "config.json").write_text(
        json.dumps(official_json(config.speech_lm), indent=2) + "\n", encoding="utf-8"
    )
    # One state dict at a time: the next is made when the one before is on disk and freed.
    files = {
        "speech_lm": generation.speech_lm_files["base"],
        "flow": generation.flow_file,
        "vocoder": generation.vocoder_file,
    }
    for part, file in files.items():
        notify(file)
        torch.save(synthetic_tensors(part, config, generation, seed), folder / file)
    if front_end:
        notify(generation.speaker_encoder_file)
        save_speaker_encoder(folder / generation.speaker_encoder_file, config, seed)
        notify(generation.speech_tokenizer_file)
        save_speech_tokenizer(folder / generation.speech_tokenizer_file, config, seed)
        notify(generation.text_folder)
        write_text_tokenizer(
            text_folder, config.speech_lm.text_vocab_size, generation.special_tokens
        )
