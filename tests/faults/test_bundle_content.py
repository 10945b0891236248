"""Bundles whose manifest agrees with their files, and whose files are not what they should be."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import CLIP
from support.fuzz_command import refused


def _forge(bundle: Path, change: Callable[[Path], None]) -> None:
    """Change files of the bundle, then let its manifest list them as they are."""
    change(bundle)
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for component in manifest["components"].values():
        for entry in component["files"]:
            content = (bundle / entry["path"]).read_bytes()
            entry["size"], entry["sha256"] = len(content), hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(manifest))


def _write(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda bundle: (bundle / name).write_bytes(content) and None


def _swap(one: str, other: str) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        first, second = (bundle / one).read_bytes(), (bundle / other).read_bytes()
        (bundle / one).write_bytes(second)
        (bundle / other).write_bytes(first)

    return change


def _cut(name: str, kept: float) -> Callable[[Path], None]:
    def change(bundle: Path) -> None:
        content = (bundle / name).read_bytes()
        (bundle / name).write_bytes(content[: int(len(content) * kept)])

    return change


def _twice_in_the_header(bundle: Path) -> None:
    """A safetensors header that names a tensor twice, as readers may understand differently."""
    path = bundle / "speech_lm" / "weights.safetensors"
    content = path.read_bytes()
    size = int.from_bytes(content[:8], "little")
    header, data = content[8 : 8 + size], content[8 + size :]
    start = header.index(b'"text_embedding"')
    end = header.index(b"}", start) + 1
    doubled = header[:end] + b"," + header[start:end] + header[end:]
    path.write_bytes(struct.pack("<Q", len(doubled)) + doubled + data)


CHANGES = {
    "empty-graph": _write("flow_encoder/flow_encoder.onnx", b""),
    "graph-of-zeros": _write("flow_encoder/flow_encoder.onnx", bytes(1000)),
    "text-for-a-graph": _write("flow_encoder/flow_encoder.onnx", b"not a graph"),
    "graph-cut-in-half": _cut("speech_lm/speech_lm.onnx", 0.5),
    "weights-cut-in-half": _cut("speech_lm/weights.safetensors", 0.5),
    "empty-weights": _write("vocoder/weights.safetensors", b""),
    "endless-header": _write("speech_lm/weights.safetensors", b"\xff" * 3_000_000),
    "a-tensor-twice": _twice_in_the_header,
    "encoders-swapped": _swap(
        "speaker_encoder/speaker_encoder.onnx", "speech_tokenizer/speech_tokenizer.onnx"
    ),
    "graph-of-another-network": _swap(
        "speaker_encoder/speaker_encoder.onnx", "flow_encoder/flow_encoder.onnx"
    ),
    "empty-vocabulary": _write("text_tokenizer/vocab.json", b"{}"),
    "vocabulary-of-words": _write("text_tokenizer/vocab.json", b'{"a": "b"}'),
    "vocabulary-with-a-token-twice": _write("text_tokenizer/vocab.json", b'{"a": 0, "a": 1}'),
    "vocabulary-nested": _write("text_tokenizer/vocab.json", b'{"a":' * 50_000),
    "empty-merges": _write("text_tokenizer/merges.txt", b""),
    "merges-that-are-none": _write("text_tokenizer/merges.txt", b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_forged_bundle_is_refused_and_speaks_nothing(
    change: Callable[[Path], None], tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "forged"
    shutil.copytree(tiny_bundle, bundle)
    _forge(bundle, change)
    options = ("--bundle", bundle, "--audio", CLIP, "--output", tmp_path / "o.wav")
    refused("synth", "Hi", *options)
    assert not (tmp_path / "o.wav").exists()


SPK2INFO = {
    "empty": b"",
    "text": b"anna",
    "zip-without-files": b"PK\x05\x06" + bytes(18),
    "zip-cut": b"PK\x03\x04" + bytes(30),
    "pickle-of-nothing": b"\x80\x02}.",
    "pickle-that-runs": b"cos\nsystem\n(S'touch ran'\ntR.",
    "pickle-without-end": b"\x80\x02" + b"(" * 100_000,
}


@pytest.mark.parametrize("content", SPK2INFO.values(), ids=SPK2INFO)
def test_a_file_of_no_speakers_is_refused_and_runs_nothing(
    content: bytes, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spk2info.pt").write_bytes(content)
    refused("cache-speaker", tiny_bundle, "--import", "spk2info.pt", "--speakers", "s")
    assert [path.name for path in tmp_path.iterdir()] == ["spk2info.pt"]
