"""The request that a bench times: fixed lengths, fixed ids, the same arrays in every engine.

Nothing in it depends on a text or a voice, so any checkpoint and any bundle takes it, and a random
model does exactly the work of a trained one.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import UsageError

TOKEN_RATE = 25  # speech tokens per second, in every generation
FRAMES_PER_TOKEN = 2
SOLVER_STEPS = 10
SAMPLES_PER_FRAME = 480
MEL_BINS = 80
_TEXT_IDS_PER_SECOND = 4.5  # of English at a normal pace
_SMALLEST_VOCABULARY = 1000  # ids below exist in every text and speech table
_EMBEDDING_SIZE = 192
_LIMIT_SECONDS = 300  # of the fixed noise, prompt included


@dataclass(frozen=True)
class Workload:
    """Audio to make and prompt to follow, in seconds, and how much of it one repetition times."""

    seconds: float = 10.0
    prompt_seconds: float = 5.0
    decode_tokens: int = 24  # speech tokens decoded per repetition, behind the whole prefill
    solver_steps: int = 2  # solver steps taken per repetition, of the model's ten

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

    @property
    def tokens(self) -> int:
        """Speech tokens of the audio."""
        return round(self.seconds * TOKEN_RATE)

    @property
    def prompt_tokens(self) -> int:
        """Speech tokens of the prompt."""
        return round(self.prompt_seconds * TOKEN_RATE)

    @property
    def frames(self) -> int:
        """Mel frames of prompt and audio together."""
        return (self.tokens + self.prompt_tokens) * FRAMES_PER_TOKEN

    @property
    def prefill_positions(self) -> int:
        """Rows that the speech LM reads before the first token."""
        ids = self.inputs
        return 2 + len(ids.prompt_text_ids) + len(ids.text_ids) + len(ids.prompt_tokens)

    @cached_property
    def inputs(self) -> Inputs:
        """The request's ids and arrays."""
        return Inputs.of(self)

    def as_json(self) -> dict[str, Any]:
        """The fields, for a worker's command line and for reports."""
        return asdict(self)


@dataclass(frozen=True)
class Inputs:
    """Ids and arrays of one request. `prompt_mel` [frames, 80], `embedding` [192]."""

    text_ids: list[int]
    prompt_text_ids: list[int]
    tokens: list[int]
    prompt_tokens: list[int]
    prompt_mel: Floats
    embedding: Floats

    @classmethod
    def of(cls, workload: Workload) -> Inputs:
        """The same for the same workload, in any process."""
        rng = np.random.default_rng(0)

        def ids(count: int) -> list[int]:
            return [int(i) for i in rng.integers(0, _SMALLEST_VOCABULARY, max(count, 1))]

        frames = workload.prompt_tokens * FRAMES_PER_TOKEN
        # A log-mel of speech lies around -5 with a spread of 2 (matcha's mel, natural logarithm).
        mel = rng.normal(-5.0, 2.0, (frames, MEL_BINS)).astype(np.float32)
        return cls(
            text_ids=ids(round(workload.seconds * _TEXT_IDS_PER_SECOND)),
            prompt_text_ids=ids(round(workload.prompt_seconds * _TEXT_IDS_PER_SECOND)),
            tokens=ids(workload.tokens),
            prompt_tokens=ids(workload.prompt_tokens),
            prompt_mel=mel,
            embedding=rng.normal(0.0, 1.0, _EMBEDDING_SIZE).astype(np.float32),
        )
