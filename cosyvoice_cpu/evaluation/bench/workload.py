"""The request that a bench times: fixed lengths, fixed ids, the same arrays in every engine.

Nothing in it depends on a text or a voice, so any checkpoint and any bundle takes it, and a random
model does exactly the work of a trained one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, Audio, Synthesis
from cosyvoice_cpu.decoding.solver import evaluated_rows
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.utterances import LOWEST_TEXT_IDS, Utterance

_TEXT_IDS_PER_SECOND = 4.5  # of English at a normal pace
_LIMIT_SECONDS = 300  # of the fixed noise, prompt included


@dataclass(frozen=True)
class Workload:
    """Audio to make and prompt to follow, in seconds, and how much of it one repetition times."""

    seconds: float = 10.0
    prompt_seconds: float = 5.0
    decode_tokens: int = 24  # speech tokens decoded per repetition, behind the whole prefill
    solver_steps: int = 2  # guided solver steps taken per repetition, of the model's

    def __post_init__(self) -> None:
        """Raises: UsageError for lengths that no model takes."""
        if not (self.seconds >= 1 and self.prompt_seconds >= 1):  # so that NaN is refused too
            raise UsageError("audio and prompt last at least 1 s", "the defaults are 10 and 5")
        if self.seconds + self.prompt_seconds > _LIMIT_SECONDS:
            raise UsageError(
                f"{self.seconds + self.prompt_seconds:g} s exceed the model's {_LIMIT_SECONDS}",
                "the defaults are 10 and 5",
            )
        if self.decode_tokens < 1 or self.solver_steps < 1:
            raise UsageError("a repetition takes at least one token and one step", "give 1 or more")

    def as_json(self) -> dict[str, Any]:
        """The fields, for a bench process's command line and for reports."""
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """A workload for one model: numbers of tokens, frames and samples by its own rates."""

    workload: Workload
    audio: Audio
    synthesis: Synthesis
    preset: str = DEFAULT_PRESET  # of the solver

    @property
    def guided_steps(self) -> float:
        """Guided steps, of two rows each, that the solver's evaluations amount to."""
        return evaluated_rows(self.synthesis.preset(self.preset)) / 2

    @property
    def solved_frames(self) -> int:
        """Mel frames that an evaluation of the solver computes, those of a cached prompt not."""
        cached = self.synthesis.preset(self.preset).prompt == "cached"
        return self.target_frames if cached else self.frames

    @property
    def tokens(self) -> int:
        """Speech tokens of the audio."""
        return round(self.workload.seconds * self.audio.token_rate)

    @property
    def prompt_tokens(self) -> int:
        """Speech tokens of the prompt."""
        return round(self.workload.prompt_seconds * self.audio.token_rate)

    @property
    def decode_tokens(self) -> int:
        """Speech tokens that one repetition decodes."""
        return min(self.workload.decode_tokens, self.tokens)

    @property
    def frames(self) -> int:
        """Mel frames of prompt and audio together."""
        return self.audio.frames_of(self.tokens + self.prompt_tokens)

    @property
    def target_frames(self) -> int:
        """Mel frames of the audio."""
        return self.frames - self.audio.frames_of(self.prompt_tokens)

    @property
    def samples(self) -> int:
        """Audio samples that the vocoder makes."""
        return self.target_frames * self.audio.samples_per_frame

    @property
    def prefill_positions(self) -> int:
        """Rows that the speech LM reads before the first token; two are marks."""
        ids = self.utterance
        return 2 + len(ids.prompt_text_ids) + len(ids.text_ids) + len(ids.prompt_tokens)

    @cached_property
    def utterance(self) -> Utterance:
        """Ids, prompt and embedding: the same for the same request, in any process."""
        rng = np.random.default_rng(0)

        def text(seconds: float) -> list[int]:
            count = max(round(seconds * _TEXT_IDS_PER_SECOND), 1)
            return [int(i) for i in rng.integers(0, LOWEST_TEXT_IDS, count)]

        def speech(count: int) -> list[int]:
            return [int(i) for i in rng.integers(0, self.synthesis.speech_vocabulary, count)]

        shape = (self.audio.frames_of(self.prompt_tokens), self.synthesis.mel.num_mels)
        # A log-mel of speech lies around -5 with a spread of 2 (matcha's mel, natural logarithm).
        mel = rng.normal(-5.0, 2.0, shape).astype(np.float32)
        embedding = rng.normal(0.0, 1.0, self.synthesis.speaker_embedding_size)
        return Utterance(
            name="bench",
            text_ids=text(self.workload.seconds),
            prompt_text_ids=text(self.workload.prompt_seconds),
            tokens=speech(self.tokens),
            prompt_tokens=speech(self.prompt_tokens),
            prompt_mel=mel,
            embedding=embedding.astype(np.float32),
        )
