"""The trained networks as one checkpoint folder in the official layout, in half precision."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from cosyvoice_cpu.bundle.manifest import ComponentName, MelSettings
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.checkpoint.synthetic_text import official_json, official_yaml
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.reference.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from cosyvoice_cpu.networks.reference.weights import official_tensors
from training.flow import Flow
from training.sizes import (
    FLOW,
    MEL_BINS,
    SAMPLE_RATE,
    SAMPLING,
    VOCODER,
    speech_lm_config,
)
from training.speech import Voice
from training.speech_lm import sharpen
from training.speech_tokenizer import SpeechTokenizer
from training.spelling import Spelling
from training.token_ids import IdTable
from training.tokenizer_graph import save_tokenizer
from training.trainer import load_averaged
from training.weight_norm import with_weight_norm, without_weight_norm

LARGEST_VOICE = 30_000_000  # bytes
# Of about 3 s each, which every request pays for, and no text that the generator of training texts
# can make.
PROMPT_TEXTS = (
    "The train leaves at a quarter past nine tonight.",
    "Would you open the window? It is warm in here.",
    "She took her coat and went out without a word.",
)


def voice_config(text_rows: int) -> CheckpointConfig:
    """What the voice's YAML and `config.json` say."""
    return CheckpointConfig(
        sample_rate=SAMPLE_RATE,
        token_frame_rate=25,
        speech_lm=speech_lm_config(text_rows),
        sampling=SAMPLING,
        flow=FLOW,
        vocoder=VOCODER,
        mel=MelSettings(
            n_fft=1920,
            hop=480,
            win=1920,
            num_mels=MEL_BINS,
            fmin=0.0,
            fmax=None,
        ),
    )


def assemble(state: Path, folder: Path) -> dict[str, int]:
    """Write the voice of the runs in `state` to `folder`, whole or not at all; the step of every
    run.

    Raises FileNotFoundError naming the run that has no checkpoint, ValueError when the voice is too
    large.
    """
    steps: dict[str, int] = {}

    def load(run: str, network: torch.nn.Module) -> None:
        steps[run] = load_averaged(state / run, network)

    spelling = Spelling(state / "text")
    lm: SpeechLM = SpeechLM(speech_lm_config(spelling.rows))
    flow, tokenizer = Flow(), SpeechTokenizer()
    vocoder = without_weight_norm(Vocoder(VOCODER))
    f0: F0Predictor = vocoder.f0_predictor
    load("speech_lm", lm)
    sharpen(lm)
    for run, network in (("flow", flow), ("vocoder", vocoder)):
        load(run, network)
        for later in (f"{run}_tuning", f"{run}_harmonics", f"{run}_adversarial"):
            if (state / later / "checkpoint.pt").exists():
                load(later, network)
    load("f0", f0)
    load("speech_tokenizer", tokenizer)

    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    config = voice_config(spelling.rows)
    text_folder = part / COSYVOICE3.text_folder
    shutil.copytree(state / "text", text_folder)
    described = json.dumps(official_json(config.speech_lm), indent=2) + "\n"
    (text_folder / "config.json").write_text(described, encoding="utf-8")
    (part / COSYVOICE3.yaml_file).write_text(official_yaml(config), encoding="utf-8")
    files: dict[str, dict[ComponentName, torch.nn.Module]] = {
        COSYVOICE3.speech_lm_files["base"]: {"speech_lm": lm},
        COSYVOICE3.flow_file: {"flow_encoder": flow.encoder, "flow_estimator": flow.estimator},
        COSYVOICE3.vocoder_file: {"vocoder": with_weight_norm(vocoder)},
    }
    prefixes = {name: spec.key_prefix for name, spec in COSYVOICE3.components.items()}
    for file, networks in files.items():
        named = {prefixes[component]: network for component, network in networks.items()}
        _save_half(official_tensors(named, COSYVOICE3), part / file)
    table = IdTable.load(state / "tokens" / "table.npz")
    save_tokenizer(tokenizer, table, part / COSYVOICE3.speech_tokenizer_file)
    shutil.copy(state / "speaker_encoder" / "campplus.onnx", part / COSYVOICE3.speaker_encoder_file)

    size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
    if size > LARGEST_VOICE:
        raise ValueError(f"the voice has {size} bytes, more than {LARGEST_VOICE}")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return steps


def write_prompts(voice: Voice, folder: Path, texts: Sequence[str] = PROMPT_TEXTS) -> None:
    """Let `voice` read `texts`, as NAME-N.flac and NAME-N.txt."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(texts, 1):
        speech = voice.speak(text, seed=number)
        if speech is None:
            raise ValueError(f"{voice.name} has nothing to say for {text!r}")
        name = f"{voice.name}-{number}"
        soundfile.write(folder / f"{name}.flac", speech.audio, SAMPLE_RATE, subtype="PCM_16")
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")


def _save_half(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Float16, tied tensors stored once. Raises ValueError for a value that float16 can't hold."""
    halves: dict[int, Tensor] = {}
    for name, tensor in tensors.items():
        half = halves.setdefault(tensor.data_ptr(), tensor.detach().half().contiguous())
        if not torch.isfinite(half).all():
            raise ValueError(f"{name} leaves the range of float16")
    torch.save({name: halves[tensor.data_ptr()] for name, tensor in tensors.items()}, path)
