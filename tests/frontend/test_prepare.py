"""From a clip to a speaker, through real ONNX sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.bundle_examples import PROMPT_SPEC
from support.front_end_graphs import (
    INT64,
    save_counting_tokenizer,
    save_mean_encoder,
)
from support.recordings import SPEECH

from cosyvoice_cpu.checkpoint.synthetic_text import write_text_tokenizer
from cosyvoice_cpu.errors import AudioError, SpeakerError, TextError
from cosyvoice_cpu.frontend import TextTokenizer, kaldi_fbank, mel_spectrogram, resample
from cosyvoice_cpu.frontend.prepare import (
    FrontEndModels,
    PreparedSpeaker,
    prepare_speaker,
)
from cosyvoice_cpu.frontend.prompt_spec import PromptSpec
from cosyvoice_cpu.generations import generation_named

SPECIAL = generation_named("cosyvoice3").special_tokens
END = "<|endofprompt|>"
# As long as the original's own example clip, whose shapes are known: 3.48 s.
CLIP = np.concatenate([SPEECH, SPEECH])[:83_520]
WORDS = "hope you will do"


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> TextTokenizer:
    folder = tmp_path_factory.mktemp("text")
    write_text_tokenizer(folder, 256 + 44 + len(SPECIAL), SPECIAL)
    return TextTokenizer.load(folder)


@pytest.fixture
def models(tmp_path: Path) -> FrontEndModels:
    return FrontEndModels(
        save_mean_encoder(tmp_path / "encoder.onnx"),
        save_counting_tokenizer(tmp_path / "tokenizer.onnx"),
    )


def prepare(
    models: FrontEndModels,
    tokenizer: TextTokenizer,
    audio: NDArray[Any] = CLIP,
    rate: int = 24_000,
    transcript: str = WORDS,
    name: str = "anna",
    spec: PromptSpec = PROMPT_SPEC,
) -> PreparedSpeaker:
    return prepare_speaker(
        name,
        audio,
        rate,
        transcript,
        models=models,
        tokenizer=tokenizer,
        spec=spec,
        end_of_prompt=END,
    )


def test_a_clip_gives_the_originals_shapes_and_features(
    models: FrontEndModels, tokenizer: TextTokenizer
) -> None:
    prepared = prepare(models, tokenizer, transcript=f"  {WORDS}\n")
    speaker = prepared.speaker
    assert speaker.speech_tokens.tolist() == list(range(87))  # 348 log-mel frames
    assert np.array_equal(speaker.mel, mel_spectrogram(CLIP))  # 174 frames
    fbank = kaldi_fbank(resample(CLIP, 24_000, 16_000))  # [346, 80]
    assert np.allclose(speaker.embedding, np.abs(fbank).mean() + np.arange(192), rtol=1e-5)
    assert speaker.transcript == WORDS
    assert speaker.prompt_text_ids.tolist() == tokenizer.encode(WORDS)
    assert speaker.speaker_encoder_sha256 == "a" * 64
    assert prepared.report.warnings == ()


@pytest.mark.parametrize("extra, count", [(3, 87), (-5, 82)])
def test_tokens_and_mel_are_cut_to_one_length(
    tmp_path: Path, tokenizer: TextTokenizer, extra: int, count: int
) -> None:
    models = FrontEndModels(
        save_mean_encoder(tmp_path / "encoder.onnx"),
        save_counting_tokenizer(tmp_path / "tokenizer.onnx", extra=extra),
    )
    speaker = prepare(models, tokenizer).speaker
    assert speaker.speech_tokens.size == count and speaker.mel.shape == (2 * count, 80)


@pytest.mark.parametrize("rank, id_type", [(2, INT64), (3, INT64), (3, 6)])
def test_ids_of_any_integer_type_and_rank_are_taken(
    tmp_path: Path, tokenizer: TextTokenizer, rank: int, id_type: int
) -> None:
    models = FrontEndModels(
        save_mean_encoder(tmp_path / "encoder.onnx"),
        save_counting_tokenizer(tmp_path / "tokenizer.onnx", rank=rank, id_type=id_type),
    )
    speaker = prepare(models, tokenizer).speaker
    assert speaker.speech_tokens.dtype == np.int32 and speaker.speech_tokens.size == 87


def test_without_a_transcript_there_are_no_text_ids(
    models: FrontEndModels, tokenizer: TextTokenizer
) -> None:
    speaker = prepare(models, tokenizer, transcript=" ").speaker
    assert speaker.prompt_text is None and speaker.prompt_text_ids.size == 0


def test_a_prepared_speaker_can_be_saved_and_loaded(
    models: FrontEndModels, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    speaker = prepare(models, tokenizer).speaker
    speaker.save(tmp_path / "anna.safetensors")
    assert np.array_equal(
        type(speaker).load(tmp_path / "anna.safetensors", PROMPT_SPEC).mel, speaker.mel
    )


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"audio": np.zeros(72_000, np.float32)}, AudioError, "the clip is silent"),
        ({"audio": np.zeros(0, np.float32)}, AudioError, "the clip is silent"),
        ({"audio": np.full(72_000, np.nan, np.float32)}, AudioError, "not finite"),
        ({"audio": CLIP, "rate": 8000}, AudioError, "a sample rate of 8000 Hz"),
        ({"audio": np.tile(CLIP, 9)}, AudioError, "lasts 31.3 s; a prompt may have at most 30 s"),
        ({"audio": CLIP[None]}, AudioError, "expected mono"),
        ({"audio": (CLIP * 32767).astype(np.int16)}, AudioError, "got int16"),
        ({"transcript": f"You are.{END}{WORDS}"}, TextError, "holds '<|endofprompt|>'"),
        ({"transcript": f"You are.<endofprompt>{WORDS}"}, TextError, "holds '<|endofprompt|>'"),
        ({"transcript": "a" * 2001}, TextError, "has 2001 characters"),
        ({"transcript": "a\ud800"}, TextError, "broken character"),
        ({"name": "../anna"}, SpeakerError, "can't name a speaker"),
        (
            {"spec": replace(PROMPT_SPEC, speech_vocabulary=50)},
            SpeakerError,
            "speech token 86; the bundle's",
        ),
        ({"spec": replace(PROMPT_SPEC, embedding_size=64)}, SpeakerError, "of 192 values"),
    ],
)
def test_what_can_not_be_a_prompt_is_refused(
    models: FrontEndModels,
    tokenizer: TextTokenizer,
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message.replace("|", r"\|")):
        prepare(models, tokenizer, **changes)


@pytest.mark.parametrize(
    "transcript, message", [("word " * 60, "seems longer"), ("a", "seems shorter")]
)
def test_a_transcript_that_does_not_fit_the_clip_is_warned_about(
    models: FrontEndModels, tokenizer: TextTokenizer, transcript: str, message: str
) -> None:
    warnings = prepare(models, tokenizer, transcript=transcript).report.warnings
    assert any(message in warning for warning in warnings)


def test_a_model_that_gives_no_numbers_is_refused(tmp_path: Path, tokenizer: TextTokenizer) -> None:
    models = FrontEndModels(
        save_mean_encoder(tmp_path / "encoder.onnx", scale=float("inf")),
        save_counting_tokenizer(tmp_path / "tokenizer.onnx"),
    )
    with pytest.raises(SpeakerError, match="gave values that are not finite"):
        prepare(models, tokenizer)
