"""Thousands of damaged inputs for each reader: read, or refused as what it is, and nothing else."""

from __future__ import annotations

import io
import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile
from safetensors.numpy import save_file
from support.fuzz_inputs import READERS, TIMES, seeds

from cosyvoice_cpu.bundle.manifest import parse_manifest
from cosyvoice_cpu.bundle.onnx_scan import scan_onnx
from cosyvoice_cpu.checkpoint.yaml_reader import read_hyperpyyaml
from cosyvoice_cpu.errors import (
    AudioError,
    BundleError,
    CheckpointError,
    ManifestError,
    SpeakerError,
    UsageError,
)
from cosyvoice_cpu.frontend.clip import load_clip
from cosyvoice_cpu.frontend.sentences import split_sentences
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer
from cosyvoice_cpu.quantization.recipes.recipe import parse_recipe, recipe_names
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable
from tools.damaged_files import damaged


def _one_line(error: Exception) -> None:
    """What the command line prints: a fact of bounded length."""
    assert 0 < len(str(error)) < 2000


def test_the_default_run_has_ten_thousand_inputs() -> None:
    assert sum(READERS.values()) >= 10_000


def test_a_damaged_manifest_is_read_or_refused_as_one(tiny_bundle: Path) -> None:
    good = (tiny_bundle / "manifest.json").read_bytes()
    for chance in seeds("manifest"):
        try:
            parse_manifest(damaged(good, chance), Path("manifest.json"))
        except ManifestError as error:
            _one_line(error)


def _speaker() -> Speaker:
    rng = np.random.default_rng(0)
    return Speaker(
        name="anna",
        generation="cosyvoice3",
        transcript="Good morning.",
        prompt_text_ids=np.array([3, 1, 4], np.int32),
        speech_tokens=np.arange(8, dtype=np.int32),
        mel=rng.normal(size=(16, 80)).astype(np.float32),
        embedding=rng.normal(size=192).astype(np.float32),
    )


def test_a_damaged_speaker_file_is_read_or_refused_as_one(tmp_path: Path) -> None:
    path = tmp_path / "anna.safetensors"
    _speaker().save(path)
    good = path.read_bytes()
    header = 8 + int.from_bytes(good[:8], "little")
    for chance in seeds("speaker file"):
        path.write_bytes(damaged(good, chance, header))
        try:
            speaker = Speaker.load(path)
        except SpeakerError as error:
            _one_line(error)
        else:
            assert np.all(np.isfinite(speaker.mel))
            assert speaker.name == "anna"


def test_a_damaged_weight_file_is_read_or_refused_as_one(tmp_path: Path) -> None:
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = tmp_path / "weights.safetensors"
    save_file({"table": table, "other": table[0]}, path)
    good = path.read_bytes()
    for chance in seeds("weight file"):
        path.write_bytes(damaged(good, chance, 200))
        try:
            rows = EmbeddingTable(path, "table")
        except BundleError as error:
            _one_line(error)
        else:
            assert rows([0]).shape == (1, rows.shape[1])


def test_a_damaged_graph_refers_to_its_own_folder_or_is_refused(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tiny_bundle / "flow_encoder"
    good = (folder / "flow_encoder.onnx").read_bytes()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    path = tmp_path / "flow_encoder.onnx"
    for chance in seeds("ONNX external data"):
        path.write_bytes(damaged(good, chance))
        try:
            tensors = scan_onnx(path, sizes)
        except BundleError as error:
            _one_line(error)
        else:
            for tensor in tensors:
                assert tensor.offset + tensor.length <= sizes[tensor.location]


def test_a_damaged_model_description_is_read_or_refused_as_one(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    good = (tiny_checkpoint / "cosyvoice3.yaml").read_bytes()[:1500]
    path = tmp_path / "cosyvoice3.yaml"
    for chance in seeds("checkpoint YAML"):
        path.write_bytes(damaged(good, chance))
        try:
            assert isinstance(read_hyperpyyaml(path), dict)
        except CheckpointError as error:
            _one_line(error)


def test_a_damaged_recipe_is_read_or_refused_as_one() -> None:
    import cosyvoice_cpu.quantization as package

    folder = Path(package.__file__).parent / "recipes"
    good = [(folder / f"{name}.toml").read_bytes() for name in recipe_names()]
    for chance in seeds("recipe TOML"):
        try:
            parse_recipe(damaged(chance.choice(good), chance), "r.toml")
        except UsageError as error:
            _one_line(error)


@pytest.fixture(scope="module")
def clips() -> list[bytes]:
    """A second of noise in each format that is read."""
    noise = np.random.default_rng(0).normal(0, 0.1, 16000)
    files = []
    for kind, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("MP3", "MPEG_LAYER_III"),
    ):
        file = io.BytesIO()
        soundfile.write(file, noise, 16000, format=kind, subtype=subtype)
        files.append(file.getvalue())
    return files


def test_a_damaged_clip_is_read_or_refused_as_one(clips: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "clip"
    for chance in seeds("audio clip"):
        path.write_bytes(damaged(chance.choice(clips), chance, 64))
        try:
            audio, rate = load_clip(path)
        except AudioError as error:
            _one_line(error)
        else:
            assert audio.ndim == 1
            assert np.all(np.isfinite(audio))
            assert audio.size <= 30 * rate


# From each of these a text takes a few characters: letters, marks and what is none of both.
_BLOCKS = (
    (0x20, 0x7E),
    (0x20, 0x7E),
    (0xA0, 0x24F),
    (0x300, 0x36F),
    (0x590, 0x6FF),
    (0x900, 0xDFF),
    (0xE00, 0xFFF),
    (0x1100, 0x11FF),
    (0x1F1E6, 0x1F1FF),
    (0x2000, 0x206F),
    (0x3000, 0x30FF),
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3),
    (0xFE00, 0xFEFF),
    (0x1F300, 0x1FAFF),
    (0xE0000, 0xE01EF),
    (0, 0x10FFFF),
)
_PIECES = (
    "<|endofprompt|>",
    "[breath]",
    "<strong>",
    "。",
    "... ",
    "\r\n",
    " ",
    "3.14",
    "http://a.b/",
)


def _text(chance: random.Random) -> str:
    parts = []
    for _ in range(chance.randint(1, 12)):
        if chance.random() < 0.3:
            parts.append(chance.choice(_PIECES) * chance.choice((1, 1, 2, 30)))
            continue
        low, high = chance.choice(_BLOCKS)
        parts += [chr(chance.randint(low, high)) for _ in range(chance.randint(1, 20))]
    return "".join(c for c in parts if unicodedata.category(c[0]) != "Cs")


def test_any_text_is_cut_without_loss_and_has_ids(tiny_bundle: Path) -> None:
    tokenizer = TextTokenizer.load(tiny_bundle / "text_tokenizer", in_bundle=True)
    for chance in seeds("sentences and tokens"):
        text = _text(chance)
        segments = split_sentences(text, tokenizer.count)
        assert "".join("".join(segments).split()) == "".join(text.split())
        for segment in segments:
            ids = tokenizer.encode(segment)
            assert all(0 <= number < tokenizer.vocabulary_size for number in ids)


def test_a_longer_run_has_other_inputs() -> None:
    numbers = [chance.random() for chance in seeds("manifest")]
    assert len(set(numbers)) == len(numbers) == READERS["manifest"] * TIMES
