"""What `tools.fuzz_readers` starts from, and the readers that it gives its files to.

A file that is read is read once more by its format's own library, which must not refuse it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from torch import nn

from cosyvoice_cpu.bundle.manifest import dump_manifest, parse_manifest
from cosyvoice_cpu.bundle.onnx_operators import ForeignGraphError, require_plain_graph
from cosyvoice_cpu.bundle.onnx_scan import scan_onnx
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.checkpoint.cosyvoice3 import read_config
from cosyvoice_cpu.checkpoint.sections import Section
from cosyvoice_cpu.checkpoint.spk2info import import_spk2info
from cosyvoice_cpu.checkpoint.state_dicts import load_tensors
from cosyvoice_cpu.checkpoint.yaml_reader import read_hyperpyyaml
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.export.weights import Weight, read_weights, write_weights
from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable

Read = Callable[[Path], None]

_TEXT = DEMO_BUNDLE / "text_tokenizer"
_SPEAKER = next((DEMO_BUNDLE / "speakers").glob("*.safetensors"))
_VOICE = Path(__file__).parents[1] / "demo_voice" / "checkpoint"
_SHAPES = {"a.weight": (4, 3), "a.bias": (4,), "b": (64, 64), "c": ()}
_STATE: dict[str, Any] = {key: torch.ones(shape) for key, shape in _SHAPES.items()}


class _Network(nn.Module):
    """What has these tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.b, self.c = (nn.Parameter(_STATE[name]) for name in "bc")


def _saved(value: Any) -> bytes:
    buffer = BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _entry() -> dict[str, torch.Tensor]:
    """A speaker as `add_zero_shot_spk` stores it."""
    speaker = Speaker.load(_SPEAKER)
    tokens = torch.from_numpy(speaker.speech_tokens)[None]
    embedding = torch.from_numpy(speaker.embedding)[None]
    return {
        "prompt_text": torch.from_numpy(speaker.prompt_text_ids)[None],
        "llm_prompt_speech_token": tokens,
        "flow_prompt_speech_token": tokens,
        "prompt_speech_feat": torch.from_numpy(speaker.mel)[None],
        "llm_embedding": embedding,
        "flow_embedding": embedding,
    }


def _weights(folder: Path) -> bytes:
    path = folder / "good.safetensors"
    rng = np.random.default_rng(0)
    table = rng.normal(size=(20, 8)).astype(np.float32)
    arrays: dict[str, NDArray[Any]] = {
        "table": table,
        "half": table.astype(np.float16),
        "scale": table[:, 0],
    }
    write_weights(path, {name: Weight.of(array) for name, array in arrays.items()})
    return path.read_bytes()


def good_files(folder: Path) -> dict[str, list[bytes]]:
    """Good content of every kind; `folder` is for what has to be written first."""
    return {
        "state dict": [
            _saved(value)
            for value in (
                _STATE,
                {"model": _STATE, "epoch": 3},
                {key: nn.Parameter(value.half()) for key, value in _STATE.items()},
                _Network().state_dict(),  # an OrderedDict with an attribute
            )
        ],
        "spk2info": [_saved({"anna": _entry(), "ben": {"embedding": torch.ones(1, 192)}})],
        "weights": [_weights(folder)],
        "speaker": [_SPEAKER.read_bytes()],
        "manifest": [(DEMO_BUNDLE / "manifest.json").read_bytes()],
        "YAML": [(_VOICE / "cosyvoice3.yaml").read_bytes()],
        "vocabulary": [(_TEXT / "vocab.json").read_bytes()],
        "merges": [(_TEXT / "merges.txt").read_bytes()],
        "ONNX": [
            path.read_bytes()
            for path in (
                DEMO_BUNDLE / "speaker_encoder" / "speaker_encoder.onnx",
                DEMO_BUNDLE / "vocoder" / "f0_predictor.onnx",
            )
        ],
    }


def _state_dict(path: Path) -> None:
    tensors = load_tensors(path, _SHAPES, {"epoch": "a counter"})
    again = torch.load(path, weights_only=True)
    if not all(tuple(tensor.shape) == _SHAPES[name] for name, tensor in tensors.items()):
        raise AssertionError("shapes differ from what was asked for")
    inner = next((again[key] for key in ("model", "module", "state_dict") if key in again), again)
    for name, tensor in tensors.items():
        other = inner.get(name, inner.get(f"module.{name}"))
        if not torch.equal(tensor, other.float()) and not torch.isnan(tensor).any():
            raise AssertionError("torch reads other numbers")


def _spk2info(path: Path) -> None:
    spec = prompt_spec(read_manifest(DEMO_BUNDLE))
    import_spk2info(path, tokenizer=_tokenizer(), spec=spec)


def _tokenizer() -> TextTokenizer:
    return TextTokenizer.load(_TEXT, in_bundle=True)


def _weight_file(path: Path) -> None:
    for weight in read_weights(path).values():
        weight.load()
    EmbeddingTable(path, "table")([0, 1])
    with safetensors.safe_open(path, "numpy") as opened:
        opened.keys()


def _speaker(path: Path) -> None:
    Speaker.load(path, prompt_spec(read_manifest(DEMO_BUNDLE)))


def _manifest(path: Path) -> None:
    manifest = parse_manifest(path.read_bytes(), path)
    if parse_manifest(dump_manifest(manifest), path) != manifest:
        raise AssertionError("it reads differently when it is written again")


def _configuration(path: Path) -> None:
    config = _VOICE / "CosyVoice-BlankEN" / "config.json"
    read_config(path, read_hyperpyyaml(path), Section(config, json.loads(config.read_bytes())))


def _tokenizer_files(path: Path) -> None:
    """Whichever of the two files is being tried, the other one is the good one."""
    folder = path.parent / "tokenizer"
    shutil.copytree(_TEXT, folder, dirs_exist_ok=True)
    shutil.copyfile(path, folder / path.name)
    tokenizer = TextTokenizer.load(folder, in_bundle=True)
    tokenizer.decode(tokenizer.encode("Good morning, 早上好 [breath] 1234"))


def _graph(path: Path) -> None:
    scan_onnx(path, {path.name: path.stat().st_size, "weights.safetensors": 1 << 30})
    try:
        require_plain_graph(path)
    except ForeignGraphError as error:
        raise BundleError(f"{path} {error}") from None


READERS: dict[str, tuple[str, Read]] = {  # kind to the file's name and its reader
    "state dict": ("a.pt", _state_dict),
    "spk2info": ("a.pt", _spk2info),
    "weights": ("a.safetensors", _weight_file),
    "speaker": ("a.safetensors", _speaker),
    "manifest": ("manifest.json", _manifest),
    "YAML": ("cosyvoice3.yaml", _configuration),
    "vocabulary": ("vocab.json", _tokenizer_files),
    "merges": ("merges.txt", _tokenizer_files),
    "ONNX": ("a.onnx", _graph),
}
