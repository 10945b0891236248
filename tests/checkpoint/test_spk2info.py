"""Importing the original's saved speakers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.bundle_examples import PROMPT_SPEC

from cosyvoice_cpu.checkpoint.spk2info import import_spk2info
from cosyvoice_cpu.checkpoint.synthetic_text import write_text_tokenizer
from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend import TextTokenizer
from cosyvoice_cpu.generations import generation_named

SPECIAL = generation_named("cosyvoice3").special_tokens
PREFIX = "You are a helpful assistant.<|endofprompt|>"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("text")
    write_text_tokenizer(folder, 256 + 44 + len(SPECIAL), SPECIAL)
    return TextTokenizer.load(folder)


def zero_shot(tokenizer: TextTokenizer, text: str, tokens: int = 5) -> dict[str, torch.Tensor]:
    """An entry as add_zero_shot_spk stores it."""
    ids = torch.tensor([tokenizer.encode(text)], dtype=torch.int32)
    speech = torch.arange(tokens, dtype=torch.int32)[None]
    mel, embedding = torch.randn(1, 2 * tokens, 80), torch.randn(1, 192)
    entry = {"prompt_text": ids, "llm_prompt_speech_token": speech}
    entry |= {"flow_prompt_speech_token": speech, "prompt_speech_feat": mel}
    entry |= {"llm_embedding": embedding, "flow_embedding": embedding}
    lengths = {f"{name}_len": torch.tensor([value.shape[1]]) for name, value in entry.items()}
    return entry | lengths


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def test_both_kinds_of_entries_become_speakers(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    entry = zero_shot(tokenizer, f"{PREFIX}Hello [breath] 你好")
    sft = {"embedding": torch.ones(1, 192)}
    path = saved(tmp_path / "spk2info.pt", {"my voice": entry, "中文女": sft})
    voice, plain = import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)
    assert (voice.name, voice.transcript) == ("my_voice", "Hello [breath] 你好")
    assert voice.prompt_text_ids.tolist() == tokenizer.encode("Hello [breath] 你好")
    assert voice.speech_tokens.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(voice.mel, entry["prompt_speech_feat"][0].numpy())
    assert voice.speaker_encoder_sha256 == ""
    assert plain.name == "中文女" and plain.prompt_text is None and plain.mel.shape == (0, 80)
    for speaker in (voice, plain):
        path = tmp_path / f"{speaker.name}.safetensors"
        speaker.save(path)
        type(speaker).load(path, PROMPT_SPEC)


def test_an_entry_without_prefix_keeps_all_its_text(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    path = saved(tmp_path / "a.pt", {"a": zero_shot(tokenizer, "Hello")})
    assert import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)[0].transcript == "Hello"


def test_surplus_mel_frames_are_cut(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    entry = zero_shot(tokenizer, "Hello") | {"prompt_speech_feat": torch.zeros(1, 13, 80)}
    path = saved(tmp_path / "a.pt", {"a": entry})
    assert import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)[0].mel.shape == (10, 80)


def test_an_embedding_beside_a_zero_shot_prompt_takes_nothing_away(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    entry = zero_shot(tokenizer, f"{PREFIX}Hello")
    path = saved(tmp_path / "a.pt", {"a": entry | {"embedding": torch.ones(1, 192)}})
    [speaker] = import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)
    assert (speaker.transcript, speaker.speech_tokens.size, len(speaker.mel)) == ("Hello", 5, 10)
    assert np.array_equal(speaker.embedding, entry["flow_embedding"][0].numpy())


def test_the_names_of_other_programs_are_read(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    entry = zero_shot(tokenizer, "Hello")
    other = {
        "embedding": entry["flow_embedding"],
        "speech_token": entry["flow_prompt_speech_token"],
        "speech_feat": entry["prompt_speech_feat"],
    }
    texts = {"ids": entry["prompt_text"], "words": f"{PREFIX}Hello"}
    for name, text in texts.items():
        key = "prompt_text_token" if name == "ids" else "prompt_text"
        path = saved(tmp_path / f"{name}.pt", {"a": other | {key: text}})
        [speaker] = import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)
        assert (speaker.transcript, speaker.speech_tokens.size) == ("Hello", 5)


@pytest.mark.parametrize("missing", ["flow_prompt_speech_token", "prompt_speech_feat"])
def test_half_a_prompt_beside_an_embedding_is_refused(
    tmp_path: Path, tokenizer: TextTokenizer, missing: str
) -> None:
    entry = zero_shot(tokenizer, "Hello") | {"embedding": torch.ones(1, 192)}
    del entry[missing]
    path = saved(tmp_path / "a.pt", {"a": entry})
    with pytest.raises(SpeakerError, match=f"lacks the tensor {missing}"):
        import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)


@pytest.mark.parametrize(("tokens", "frames"), [(250, 430), (250, 495), (250, 505), (10, 0)])
def test_tokens_and_frames_that_disagree_are_refused(
    tmp_path: Path, tokenizer: TextTokenizer, tokens: int, frames: int
) -> None:
    entry = zero_shot(tokenizer, "Hello", tokens) | {
        "prompt_speech_feat": torch.zeros(1, frames, 80)
    }
    path = saved(tmp_path / "a.pt", {"a": entry})
    with pytest.raises(SpeakerError) as caught:
        import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)
    assert caught.value.what == (
        f"{path}, entry 'a': {tokens} speech tokens and {frames} mel frames disagree; expected"
        f" {2 * tokens} frames"
    )


@pytest.mark.parametrize(
    "change, message",
    [
        ({"flow_embedding": None}, "lacks the tensor flow_embedding"),
        ({"flow_prompt_speech_token": None}, "lacks the tensor flow_prompt_speech_token"),
        ({"prompt_speech_feat": torch.zeros(10, 80)}, r"prompt_speech_feat has shape \[10, 80\]"),
        ({"prompt_text": torch.tensor([[999999]])}, "text id 999999 is not in the vocabulary"),
        ({"prompt_text": torch.tensor([[0.5]])}, "prompt_text is torch.float32"),
        ({"flow_prompt_speech_token": torch.full((1, 5), 7000)}, "speech token 7000; the bundle's"),
        ({"flow_prompt_speech_token": torch.full((1, 5), -1)}, "a number that is no id"),
        ({"flow_embedding": torch.zeros(1, 64)}, "an embedding of 64 values"),
    ],
)
def test_a_wrong_entry_is_refused_by_name(
    tmp_path: Path, tokenizer: TextTokenizer, change: dict[str, Any], message: str
) -> None:
    path = saved(tmp_path / "a.pt", {"voice": zero_shot(tokenizer, "Hello") | change})
    with pytest.raises(SpeakerError, match=message) as caught:
        import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)
    assert f"{path}, entry 'voice'" in caught.value.what


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    "content, message",
    [
        ({}, "holds no speakers"),
        ([1], "holds no speakers"),
        ({"a": torch.zeros(3)}, "entry 'a' is no speaker"),
        (
            {"a": {"embedding": torch.ones(192)}, "a ": {"embedding": torch.ones(192)}},
            "two entries",
        ),
        ({"a": Evil()}, "holds Python objects besides tensors"),
        ({"a": {"embedding": torch.ones(192).to_sparse()}}, "lacks the tensor embedding"),
        ({"a": {"embedding": torch.ones(1).expand(1 << 30)}}, "expanded tensors are not read"),
        ({"a": {"embedding": torch.ones(192, device="meta")}}, "lacks the tensor embedding"),
    ],
)
def test_a_file_of_something_else_is_refused(
    tmp_path: Path,
    tokenizer: TextTokenizer,
    content: Any,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SpeakerError, match=message):
        import_spk2info(saved(tmp_path / "a.pt", content), tokenizer=tokenizer, spec=PROMPT_SPEC)
    assert "this must not run" not in capsys.readouterr().out


def test_a_missing_or_damaged_file_is_refused(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    with pytest.raises(SpeakerError, match="can't be read"):
        import_spk2info(tmp_path / "none.pt", tokenizer=tokenizer, spec=PROMPT_SPEC)
    path = saved(tmp_path / "a.pt", {"a": {"embedding": torch.ones(1, 192)}})
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(SpeakerError, match="is incomplete or damaged"):
        import_spk2info(path, tokenizer=tokenizer, spec=PROMPT_SPEC)
