"""Speaker files: what is kept, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.bundle_examples import PROMPT_SPEC
from support.speaker_examples import embedding_alone, speaker

from cosyvoice_cpu.bundle.manifest import Audio
from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend.speaker_folders import (
    add_speaker,
    find_speaker,
)
from cosyvoice_cpu.frontend.speakers import Speaker, check_name


def same(a: Speaker, b: Speaker) -> bool:
    return all(np.array_equal(getattr(a, field), getattr(b, field)) for field in vars(a))


@pytest.mark.parametrize("original", [speaker(), embedding_alone()])
def test_a_saved_speaker_comes_back_equal(tmp_path: Path, original: Speaker) -> None:
    path = tmp_path / f"{original.name}.safetensors"
    original.save(path)
    assert same(Speaker.load(path, PROMPT_SPEC), original)
    assert os.listdir(tmp_path) == [path.name]


def test_the_file_is_plain_safetensors(tmp_path: Path) -> None:
    speaker().save(tmp_path / "anna.safetensors")
    tensors = load_file(tmp_path / "anna.safetensors")
    shapes = {name: (str(array.dtype), array.shape) for name, array in tensors.items()}
    assert shapes == {
        "prompt_text_ids": ("int32", (10,)),
        "speech_tokens": ("int32", (25,)),
        "mel": ("float32", (50, 80)),
        "embedding": ("float32", (192,)),
    }


def test_a_renamed_file_renames_its_speaker(tmp_path: Path) -> None:
    speaker("anna").save(tmp_path / "anna.safetensors")
    (tmp_path / "anna.safetensors").rename(tmp_path / "berta.safetensors")
    assert Speaker.load(tmp_path / "berta.safetensors").name == "berta"


def test_a_speaker_shows_synthesis_what_it_asks_for() -> None:
    voice = speaker()
    assert voice.prompt_text == voice.transcript and voice.prompt_mel is voice.mel
    assert voice.prompt_tokens == tuple(int(token) for token in voice.speech_tokens)
    assert embedding_alone().prompt_text is None


def test_frames_per_token_need_not_be_whole(tmp_path: Path) -> None:
    """Generation 1: 22.05 kHz, hop 256, 50 tokens a second."""
    spec = replace(
        PROMPT_SPEC,
        audio=Audio(sample_rate=22050, token_rate=50.0, mel_frames_per_token=22050 / 256 / 50),
    )
    path = tmp_path / "anna.safetensors"
    replace(speaker(), mel=np.zeros((43, 80), np.float32)).save(path)
    assert Speaker.load(path, spec).speech_tokens.size == 25
    replace(speaker(), mel=np.zeros((44, 80), np.float32)).save(path)
    with pytest.raises(SpeakerError, match=r"\[44, 80\] for 25 speech tokens; expected \[43, 80\]"):
        Speaker.load(path, spec)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"generation": "cosyvoice2"}, "is a speaker for cosyvoice2, the bundle is cosyvoice3"),
        ({"speaker_encoder_sha256": "c" * 64}, "another speaker encoder than the bundle's"),
        ({"speech_tokenizer_sha256": "c" * 64}, "another speech tokenizer than the bundle's"),
        ({"speech_tokens": np.full(25, 6561, np.int32)}, "6561; the bundle's highest is 6560"),
        (
            {"mel": np.zeros((75, 80), np.float32)},
            r"\[75, 80\] for 25 speech tokens; expected \[50",
        ),
        ({"mel": np.zeros((50, 100), np.float32)}, r"\[50, 100\] for 25 speech tokens"),
        ({"speech_tokens": np.zeros(24, np.int32)}, r"\[50, 80\] for 24 speech tokens"),
        ({"embedding": np.ones(256, np.float32)}, "an embedding of 256 values; the bundle's have"),
    ],
)
def test_a_speaker_of_another_model_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "anna.safetensors"
    replace(speaker(), **change).save(path)
    Speaker.load(path)
    with pytest.raises(SpeakerError, match=message) as caught:
        Speaker.load(path, PROMPT_SPEC)
    assert str(path) in caught.value.what and "cache-speaker" in caught.value.hint


def test_digests_that_are_not_known_are_not_compared(tmp_path: Path) -> None:
    speaker().save(tmp_path / "anna.safetensors")
    Speaker.load(
        tmp_path / "anna.safetensors",
        replace(PROMPT_SPEC, speaker_encoder_sha256="", speech_tokenizer_sha256=""),
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"mel": np.full((50, 80), np.nan, np.float32)}, "mel holds values that are not finite"),
        ({"embedding": np.full(192, np.inf, np.float32)}, "embedding holds values that are not"),
        ({"embedding": np.zeros(192, np.float32)}, "the embedding is empty or zero"),
        ({"embedding": np.zeros(0, np.float32)}, "the embedding is empty or zero"),
        ({"speech_tokens": np.full(25, -1, np.int32)}, "speech_tokens holds a negative id"),
        ({"mel": np.zeros((0, 80), np.float32)}, "0 mel frames for 25 speech tokens don't"),
        ({"speech_tokens": np.zeros(0, np.int32)}, "50 mel frames for 0 speech tokens don't"),
        ({"speech_tokens": np.zeros(25, np.int64)}, "speech_tokens is int64 of shape"),
        ({"mel": np.zeros((1, 50, 80), np.float32)}, r"mel is float32 of shape \[1, 50, 80\]"),
        ({"transcript": ""}, "transcript and its ids don't match"),
        ({"speaker_encoder_sha256": "nonsense"}, "speaker_encoder_sha256 is not a digest"),
        ({"generation": ""}, "generation or created_by is empty"),
        ({"mel": np.zeros((20000, 80), np.float32), "speech_tokens": np.zeros(10000, np.int32)},
         "would exceed 4 MB"),
    ],
)  # fmt: skip
def test_a_speaker_that_can_not_be_is_not_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpeakerError, match=message):
        replace(speaker(), **change).save(tmp_path / "anna.safetensors")
    assert not os.listdir(tmp_path)


Edit = Callable[[dict[str, Any], dict[str, str]], object]


def rewritten(path: Path, edit: Edit) -> None:
    tensors = load_file(path)
    header = json.loads(path.read_bytes()[8:][: int.from_bytes(path.read_bytes()[:8], "little")])
    metadata = header["__metadata__"]
    edit(tensors, metadata)
    save_file(tensors, path, metadata)


@pytest.mark.parametrize(
    "edit, message",
    [
        (lambda t, m: m.update(format="pt"), r"is no speaker file \(format 'pt'\)"),
        (lambda t, m: m.pop("format"), "is no speaker file"),
        (lambda t, m: m.update(version="2"), "has version '2'; this program reads 1"),
        (lambda t, m: m.pop("transcript"), "lacks the field transcript"),
        (lambda t, m: m.update(note="x"), "has an unknown field 'note'"),
        (lambda t, m: t.pop("mel"), "lacks the tensor mel"),
        (lambda t, m: t.update(extra=t["mel"].copy()), "has an unknown tensor 'extra'"),
        (lambda t, m: t.update(mel=t["mel"].astype(np.float16)), "mel is float16"),
        (lambda t, m: t.update(mel=t["mel"] * np.float32(np.nan)), "not finite"),
        (lambda t, m: m.update(generation=""), "generation or created_by is empty"),
    ],
)
def test_a_changed_file_is_refused_by_name(tmp_path: Path, edit: Edit, message: str) -> None:
    path = tmp_path / "anna.safetensors"
    speaker().save(path)
    rewritten(path, edit)
    with pytest.raises(SpeakerError, match=message) as caught:
        Speaker.load(path)
    assert caught.value.what.startswith(str(path)) and caught.value.hint


def with_header(content: bytes, change: Callable[[str], str]) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + size].decode()).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda c: b"", "is damaged or no speaker file: it is truncated"),
        (lambda c: c[:4], "is damaged or no speaker file: it is truncated"),
        (lambda c: c[:100], "is damaged or no speaker file: it is truncated"),
        (lambda c: c[:-100], "is damaged"),
        (lambda c: c + b"more", "is damaged"),
        (lambda c: b"\xff" * 8 + c[8:], "no speaker file: its header is too long"),
        (lambda c: b"RIFF" + c, "no speaker file: its header is too long"),
        (lambda c: c + bytes(5 << 20), "exceeds 4 MB"),
        (lambda c: with_header(c, lambda h: "[]"), "no speaker file: its header is no table"),
        (lambda c: with_header(c, lambda h: "{}"), "no speaker file"),
        (lambda c: with_header(c, lambda h: "[" * 50000), "no speaker file: its header is not"),
        (
            lambda c: with_header(c, lambda h: h.replace('"name"', '"transcript"')),
            "no speaker file",
        ),
        (lambda c: with_header(c, lambda h: h.replace('"speech_tokens"', '"mel"')), "no speaker"),
        (lambda c: with_header(c, lambda h: h.replace("[192]", "[193]")), "is damaged"),
        (lambda c: with_header(c, lambda h: h.replace('"F32"', '"Q9"')), "is damaged"),
        (lambda c: with_header(c, lambda h: h.replace('"anna"', "5")), "name is no text|damaged"),
    ],
)
def test_a_damaged_file_is_refused_by_name(
    tmp_path: Path, damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "anna.safetensors"
    speaker().save(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(SpeakerError, match=message) as caught:
        Speaker.load(path)
    assert caught.value.what.startswith(str(path))


@settings(max_examples=200)
@given(st.integers(0, 900), st.integers(0, 255))
def test_a_changed_header_byte_gives_a_speaker_or_a_speaker_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, value: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "changed.safetensors"
    speaker().save(path)
    content = bytearray(path.read_bytes())
    content[position] = value
    path.write_bytes(content)
    try:
        Speaker.load(path, PROMPT_SPEC)
    except SpeakerError as error:
        assert error.what


@pytest.mark.parametrize("name", ["anna", "中文女", "Zoë", "मन्त्र", "v1.2_b-3", "7", "x" * 64])
def test_letters_of_any_script_name_a_speaker(name: str) -> None:
    assert check_name(name) == name


def test_a_name_is_the_same_however_its_accents_are_stored() -> None:
    assert check_name("Zoe\u0308") == "Zoë"


BAD_NAMES = ["", ".", "..", "../anna", "a/b", "a\\b", ".hidden", "-rf", "a b", "a\n", "a\0b", "con"]
BAD_NAMES += ["a.", "NUL.txt", "x" * 65, "女" * 67, "a:b", "😀", "*", "~", "a\u200bb", "\u202ea"]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_name_or_a_path_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpeakerError, match="can't name a speaker"):
        add_speaker(tmp_path, replace(speaker(), name=name))
    with pytest.raises(SpeakerError, match="can't name a speaker"):
        find_speaker([tmp_path], name)
    assert not os.listdir(tmp_path)
