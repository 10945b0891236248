"""From a prompt clip to a speaker: features, the two ONNX models, and the 2:1 cut.

clip ─┬─ 24 kHz ─ log-mel ─────────────────────────── mel [frames, 80] ──┐
      └─ 16 kHz ─┬─ whisper log-mel ─ speech tokenizer ─ tokens [N] ─────┴─ cut to 2:1
                 └─ fbank ─ speaker encoder ─ embedding [192]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import AudioError, TextError
from cosyvoice_cpu.frontend.clip import LONGEST_PROMPT, LOWEST_RATE
from cosyvoice_cpu.frontend.clip_quality import ClipReport, judge_clip
from cosyvoice_cpu.frontend.fbank import kaldi_fbank
from cosyvoice_cpu.frontend.marks import mend_mark
from cosyvoice_cpu.frontend.mel import WHISPER_RATE, flow_mel, whisper_log_mel
from cosyvoice_cpu.frontend.onnx_models import FrontEndModels
from cosyvoice_cpu.frontend.pcm import as_mono
from cosyvoice_cpu.frontend.prompt_spec import PromptSpec
from cosyvoice_cpu.frontend.resampling import resample
from cosyvoice_cpu.frontend.speakers import Speaker, check_name, require_fit
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

__all__ = ["FrontEndModels", "PreparedSpeaker", "prepare_speaker"]

LONGEST_TRANSCRIPT = 2000  # characters; 30 s hold some 400
# Seconds (of speech, not of pauses) per text id: 0.28 to 0.36 on average, 0.16 when hurried.
SHORTEST_ID, LONGEST_ID = 0.12, 0.8

_LINE_BREAK = re.compile(r"\s*[\n\r\v\f\x85\u2028\u2029]\s*")


@dataclass(frozen=True)
class PreparedSpeaker:
    """A speaker and what was found in its clip."""

    speaker: Speaker
    report: ClipReport


def prepare_speaker(
    name: str,
    audio: NDArray[Any],
    rate: int,
    transcript: str,
    *,
    models: FrontEndModels,
    tokenizer: TextTokenizer,
    spec: PromptSpec,
    end_of_prompt: str,
) -> PreparedSpeaker:
    """A speaker from a clip [n] at `rate` Hz and the words spoken in it, "" if unknown.

    The system prefix is no part of the transcript; synthesis adds it. Warnings are in the report.
    Raises: AudioError if the clip is too long or short, silent, or below 16 kHz; TextError if the
    transcript holds the end-of-prompt mark or is too long; SpeakerError for a bad name or if the
    models give what does not fit `spec`.
    Source: CosyVoice cosyvoice/cli/frontend.py, `frontend_zero_shot`.
    """
    name, transcript = check_name(name), _clean(transcript, end_of_prompt)
    ids = tokenizer.encode(transcript)
    audio = as_mono(audio)
    _check_clip(audio, rate)
    report = judge_clip(audio, rate)
    sample_rate = spec.audio.sample_rate
    frames = flow_mel(resample(audio, rate, sample_rate), sample_rate, spec.mel)
    narrow = resample(audio, rate, WHISPER_RATE)
    tokens = models.tokenize(whisper_log_mel(narrow))
    embedding = models.embed(kaldi_fbank(narrow))
    count = min(spec.audio.tokens_within(frames.shape[0]), tokens.size)
    if count == 0:
        raise AudioError(
            f"the clip of {audio.size / rate:.2f} s gives no speech token",
            "give a longer clip: 3 to 10 seconds of speech is best",
        )
    speaker = Speaker(
        name=name,
        generation=spec.generation,
        transcript=transcript,
        prompt_text_ids=np.array(ids, np.int32),
        speech_tokens=tokens[:count],
        mel=np.ascontiguousarray(frames[: spec.audio.frames_of(count)]),
        embedding=embedding,
        speaker_encoder_sha256=spec.speaker_encoder_sha256,
        speech_tokenizer_sha256=spec.speech_tokenizer_sha256,
    )
    require_fit(speaker, spec, f"the new speaker {name!r}")
    seconds = count / spec.audio.token_rate
    if warning := _transcript_warning(len(ids), seconds * report.seconds_speech / report.seconds):
        report = replace(report, warnings=(*report.warnings, warning))
    return PreparedSpeaker(speaker, report)


def _clean(transcript: str, end_of_prompt: str) -> str:
    transcript = mend_mark(_LINE_BREAK.sub(" ", transcript).strip(), end_of_prompt)
    if end_of_prompt in transcript:
        raise TextError(
            f"the transcript holds {end_of_prompt!r}",
            "give only the words that are spoken in the clip; the system prefix is added later",
        )
    if len(transcript) > LONGEST_TRANSCRIPT:
        raise TextError(
            f"the transcript has {len(transcript)} characters; no prompt clip holds that many",
            "give only the words that are spoken in the clip",
        )
    return transcript


def _check_clip(audio: Floats, rate: int) -> None:
    if rate < LOWEST_RATE:
        raise AudioError(
            f"the clip has a sample rate of {rate} Hz; a prompt needs at least {LOWEST_RATE} Hz",
            "record the clip at 16 kHz or more",
        )
    if audio.size > LONGEST_PROMPT * rate:
        raise AudioError(
            f"the clip lasts {audio.size / rate:.1f} s; a prompt may have at most "
            f"{LONGEST_PROMPT:.0f} s",
            "cut it, or let --trim choose a part; 3 to 10 seconds are best",
        )
    if not np.all(np.isfinite(audio)):
        raise AudioError("the clip holds samples that are not finite", "record it again")


def _transcript_warning(ids: int, seconds: float) -> str | None:
    if not ids:
        return None
    if seconds / ids < SHORTEST_ID:
        return "the transcript seems longer than what is spoken in the clip"
    if seconds / ids > LONGEST_ID:
        return "the transcript seems shorter than what is spoken in the clip"
    return None
