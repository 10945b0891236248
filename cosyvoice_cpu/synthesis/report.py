"""What synthesis says about itself: times per stage, tokens, retries and warnings."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

STAGE_NAMES = ("frontend", "speech_lm", "flow", "vocoder")

Progress = Callable[[str, float, float], None]
"""(stage that begins, part of the work done 0..1, expected seconds of audio in all)."""


@dataclass(frozen=True)
class Report:
    """How one piece of audio, or several together, came to be."""

    seconds_audio: float
    first_audio_s: float  # from the call to the first piece of audio
    stages: dict[str, float]  # seconds of computing per name of STAGE_NAMES
    speech_tokens: int  # as the speech LM made them, shortened silence included
    sentences: int
    retries: int  # attempts of the speech LM that were thrown away
    warnings: tuple[str, ...]
    ends_text: bool = True  # nothing of the text follows

    @property
    def seconds_computing(self) -> float:
        """All stages together."""
        return sum(self.stages.values())

    @classmethod
    def total(cls, parts: Sequence[Report]) -> Report:
        """The report of audio that consists of `parts`, in order; at least one."""
        return cls(
            seconds_audio=sum(part.seconds_audio for part in parts),
            first_audio_s=parts[0].first_audio_s,
            stages={name: sum(part.stages[name] for part in parts) for name in STAGE_NAMES},
            speech_tokens=sum(part.speech_tokens for part in parts),
            sentences=sum(part.sentences for part in parts),
            retries=sum(part.retries for part in parts),
            warnings=tuple(warning for part in parts for warning in part.warnings),
            ends_text=parts[-1].ends_text,
        )


class StageClock:
    """Adds up wall-clock seconds per stage."""

    def __init__(self, *, frontend: float = 0.0) -> None:
        """`frontend`: seconds that the front end took already."""
        self.seconds = dict.fromkeys(STAGE_NAMES, 0.0) | {"frontend": frontend}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the block's time for stage `name`."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
