"""Pieces of text to pieces of audio, on any implementation of the stage API.

Each piece is spoken by itself with the same prompt, as in the original, whose callers put the
pieces one behind the other without a pause: the speech LM makes the silence at the end of a
sentence. So do we; 5 ms at either end of a piece are faded so that a join can't click.

A piece that would not fit the model's longest input is cut in two before it is spoken, or
afterwards when it turns out longer than expected, so that no text is lost.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.stages import Stages
from cosyvoice_cpu.synthesis.attempts import Speech, make_speech
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.halving import halve, is_speakable
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.report import Progress, Report, StageClock
from cosyvoice_cpu.synthesis.rules import SynthesisRules
from cosyvoice_cpu.synthesis.shaping import change_speed, fade_edges
from cosyvoice_cpu.synthesis.silence import shorten_silence

Floats = NDArray[np.float32]
Encode = Callable[[str], list[int]]

log = logging.getLogger(__name__)

EXPECTED_TOKENS_PER_TEXT_ID = 8.0  # slow speech; most sentences have 4 to 7
_DONE_BEFORE = {"speech_lm": 0.0, "flow": 0.35, "vocoder": 0.9}  # share of a piece's work


@dataclass(frozen=True, eq=False)
class Request:
    """A text to be spoken: its pieces, and all that is the same for each of them."""

    pieces: tuple[str, ...]
    prompt: Prompt
    seed: int
    speed: float = 1.0
    progress: Progress | None = None
    warnings: tuple[str, ...] = ()  # about the text, known before anything is spoken
    started: float = 0.0  # time.perf_counter() at the call
    frontend_seconds: float = 0.0  # spent since then on the pieces


@dataclass(frozen=True)
class _Piece:
    text: str
    ids: list[int]


class Pipeline:
    """Speaks requests. Holds nothing of a request, so one pipeline serves several threads."""

    def __init__(self, stages: Stages, rules: SynthesisRules, encode: Encode) -> None:
        self.stages = stages
        self.rules = rules
        self.encode = encode

    def speak(self, request: Request) -> Iterator[Audio]:
        """Audio of each piece as soon as it is ready, with its report.

        Raises, at once: SynthesisError if the prompt leaves no room. While iterating:
        SynthesisError if no speech comes of a piece or a network's output is not finite, TextError
        for ids outside the model's table.
        """
        return _Run(self, request, self._room(request)).audio()

    def _room(self, request: Request) -> int:
        """Speech tokens that fit behind the prompt; the vocoder sees the mel at its new speed."""
        rules = self.rules
        prompt_frames = len(request.prompt.tokens) * rules.frames_per_token
        frames = min(rules.max_frames - prompt_frames, int(rules.max_frames * request.speed))
        room = frames // rules.frames_per_token
        if room < rules.token_rate:
            frame_rate = rules.token_rate * rules.frames_per_token
            raise SynthesisError(
                f"the speaker's clip of {prompt_frames / frame_rate:.1f} s leaves less than a"
                f" second of the {rules.max_frames / frame_rate:.1f} s that this bundle takes",
                "cache the speaker with a shorter clip, or export with a larger --max-seconds",
            )
        return room


class _Run:
    """The state of one request while it is spoken."""

    def __init__(self, pipeline: Pipeline, request: Request, room: int) -> None:
        self._stages = pipeline.stages
        self._rules = pipeline.rules
        self._encode = pipeline.encode
        self._request = request
        self._room = room
        self._clock = StageClock()
        self._clock.seconds["frontend"] = request.frontend_seconds
        self._warnings = list(request.warnings)
        self._retries = 0
        self._spoken_seconds = 0.0
        self._number = 0  # of the piece that is spoken now, from 0

    def audio(self) -> Iterator[Audio]:
        prompt = self._request.prompt
        with self._clock.stage("frontend"):
            prompt_ids = self._encode(prompt.text) if prompt.text else []
            self._waiting = deque(
                piece for text in self._request.pieces for piece in self._fitting(text)
            )
        while self._waiting:
            piece = self._waiting.popleft()
            self._tell("speech_lm", piece)
            with self._clock.stage("speech_lm"):
                speech = make_speech(
                    self._stages,
                    self._rules,
                    prompt,
                    prompt_ids,
                    piece.ids,
                    seed=self._request.seed,
                    piece=self._number,
                    room=self._room,
                )
            self._retries += speech.retries
            if speech.trouble and len(speech.tokens) >= self._room and self._cut(piece):
                self._retries += 1
            else:
                yield self._finish(piece, speech)
            self._number += 1
        if self._request.progress:
            self._request.progress("done", 1.0, self._spoken_seconds)

    def _fitting(self, text: str) -> list[_Piece]:
        """`text`, in as many parts as it takes for each to be expected to fit."""
        ids = self._encode(text)
        if len(ids) * EXPECTED_TOKENS_PER_TEXT_ID > self._room and (halves := halve(text)):
            return [piece for half in halves for piece in self._fitting(half)]
        return [_Piece(text, ids)]

    def _cut(self, piece: _Piece) -> bool:
        """Put the halves of a piece that did not fit first in line; False if it can't be cut."""
        halves = halve(piece.text)
        if halves is None:
            return False
        log.info("piece %d filled all %d tokens of room: cut in two", self._number, self._room)
        with self._clock.stage("frontend"):
            self._waiting.extendleft(_Piece(half, self._encode(half)) for half in halves[::-1])
        return True

    def _finish(self, piece: _Piece, speech: Speech) -> Audio:
        """Speech tokens to audio. Raises: SynthesisError without tokens or for broken numbers."""
        rules, prompt = self._rules, self._request.prompt
        if not speech.tokens:
            raise SynthesisError(
                f"no speech came of {_quote(piece.text)} in {speech.retries + 1} attempts",
                "try another --seed or speaker, or reword the text",
            )
        self._tell("flow", piece)
        with self._clock.stage("flow"):
            mel = self._stages.tokens_to_mel(
                shorten_silence(speech.tokens, rules.silent_tokens, rules.silent_run_limit),
                prompt_tokens=prompt.tokens,
                prompt_mel=prompt.mel,
                embedding=prompt.embedding,
                steps=rules.solver_steps,
            )
        _require_finite(mel, "flow")
        self._tell("vocoder", piece)
        with self._clock.stage("vocoder"):
            samples = self._stages.mel_to_waveform(change_speed(mel, self._request.speed))
        _require_finite(samples, "vocoder")
        return self._deliver(samples, speech)

    def _deliver(self, samples: Floats, speech: Speech) -> Audio:
        """The audio with its report; what is counted for the next piece starts anew."""
        rate = self._rules.sample_rate
        report = Report(
            seconds_audio=len(samples) / rate,
            first_audio_s=time.perf_counter() - self._request.started,
            stages=self._clock.seconds,
            speech_tokens=len(speech.tokens),
            sentences=1,
            retries=self._retries,
            warnings=(*self._warnings, *speech.warnings),
        )
        self._spoken_seconds += report.seconds_audio
        self._clock, self._warnings, self._retries = StageClock(), [], 0
        return Audio(fade_edges(samples, rate), rate, report)

    def _tell(self, stage: str, piece: _Piece) -> None:
        if self._request.progress is None:
            return
        ids = len(piece.ids) + sum(len(waiting.ids) for waiting in self._waiting)
        seconds = ids * EXPECTED_TOKENS_PER_TEXT_ID / self._rules.token_rate / self._request.speed
        done = (self._number + _DONE_BEFORE[stage]) / (self._number + 1 + len(self._waiting))
        self._request.progress(stage, done, self._spoken_seconds + seconds)


def speakable(pieces: Sequence[str], text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(pieces that have something to say, a warning for each that has not).

    Raises: TextError if there is nothing to say in `text` at all.
    """
    kept = tuple(piece for piece in pieces if is_speakable(piece))
    if not kept:
        if not text.strip():
            raise TextError("the text is empty", "give at least one word")
        raise TextError(
            f"there is nothing to speak in {_quote(text)}", "give at least one letter or digit"
        )
    dropped = [piece for piece in pieces if piece.strip() and not is_speakable(piece)]
    return kept, tuple(f"not spoken, no letter or digit: {_quote(piece)}" for piece in dropped)


def _require_finite(array: Floats, stage: str) -> None:
    if not np.isfinite(array).all():
        raise SynthesisError(
            f"the {stage} put out values that are not finite",
            "check the bundle with `cosyvoice-cpu verify`; its weights may be damaged",
        )


def _quote(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
