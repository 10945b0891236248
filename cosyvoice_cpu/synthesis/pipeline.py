"""Text to audio, piece by piece, on any implementation of the stage API.

Each piece is spoken by itself with the same prompt, as in the original, whose callers put the
pieces one behind the other without a pause: the speech LM makes the silence at the end of a
sentence. So do we. The vocoder gets some frames more at either end, so that silence there is
silent, and 5 ms at either end are faded so that a join can't click.

The pieces are chosen to fit behind the prompt into the model's longest input. One that turns out
longer than expected is cut and spoken again, so that no text is lost. The text is read as it is
spoken and the first piece of a long one is short, so that a book's first sentence is heard as soon
as a lone one. The pauses in a text are silence between pieces.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.length_guard import DEFAULT_RETRIES
from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.decoding.token_loop import token_limits
from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.frontend import writing_systems
from cosyvoice_cpu.frontend.reading import Item, Note, Pause, read_plainly
from cosyvoice_cpu.frontend.sentences import LONGEST, merge_sentences, split_sentences
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.delivery import AS_MADE, Delivery
from cosyvoice_cpu.synthesis.postprocessing import (
    EDGE_FRAMES,
    change_speed,
    cut_edges,
    fade_edges,
    hold_edges,
    is_clipped,
    is_silent,
)
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.report import Progress, Report, StageClock
from cosyvoice_cpu.synthesis.retries import Speech, make_speech

Encode = Callable[[str], list[int]]

log = logging.getLogger(__name__)

EXPECTED_SECONDS_PER_UNIT = 0.24  # for a text id, or a Han character
_READ_AHEAD = 2  # pieces
_SOFTER, _MOST_SOFTER = float(np.log(2.0)), 2  # 6 dB in log-mel, and how often
_DONE_BEFORE = {"speech_lm": 0.0, "flow": 0.35, "vocoder": 0.9}  # share of a piece's work


@dataclass(frozen=True, eq=False)
class Request:
    """A text to be spoken, and how."""

    text: str  # as typed, without the system prefix
    prompt: Prompt
    seed: int
    speed: float = 1.0
    delivery: Delivery = AS_MADE
    read: Callable[[str], Iterator[Item]] = read_plainly  # text to sentences, pauses and notes
    retries: int = DEFAULT_RETRIES  # of a piece whose speech is not plausible
    progress: Progress | None = None
    started: float = 0.0  # time.perf_counter() at the call
    frontend_seconds: float = 0.0  # spent since then on text and speaker


@dataclass(frozen=True)
class _Piece:
    text: str
    ids: list[int]

    @property
    def units(self) -> int:
        """Length as `split_sentences` counts it."""
        return len(self.text) if writing_systems.counts_in_characters(self.text) else len(self.ids)


class Pipeline:
    """Speaks requests. Holds nothing of a request, so one pipeline serves several threads."""

    def __init__(self, stages: Stages, encode: Encode) -> None:
        self.stages = stages
        self.encode = encode

    def speak(self, request: Request) -> Iterator[Audio]:
        """Audio of each piece or pause as soon as it is ready, with its report.

        Raises, at once: TextError if there is nothing to say, SynthesisError if the prompt leaves
        no room. While iterating: SynthesisError if nothing or silence alone comes of a piece or a
        network's output is not finite, TextError for ids outside the model's table.
        """
        run = _Run(self, request, self._room(request))
        run.prepare()
        return run.audio()

    def show(self, request: Request) -> Iterator[str | Pause | Note]:
        """The pieces as the model gets them, pauses and notes, without speaking. Raises: as speak.

        A piece that turns out too long for the model may be cut further when it is spoken.
        """
        run = _Run(self, request, self._room(request))
        run.prepare()
        return run.shown()

    def _room(self, request: Request) -> int:
        """Speech tokens that fit behind the prompt; the vocoder sees the mel at its new speed."""
        audio, most = self.stages.audio, self.stages.max_frames
        prompt_frames = len(request.prompt.mel)
        frames = min(most - prompt_frames, int((most - 2 * EDGE_FRAMES) * request.speed))
        room = audio.tokens_within(frames)
        if room < audio.token_rate:
            prompt_s, most_s = (float(count / audio.frame_rate) for count in (prompt_frames, most))
            raise SynthesisError(
                f"the speaker's clip of {prompt_s:.1f} s leaves less than a"
                f" second of the {most_s:.1f} s that this bundle takes",
                "cache the speaker with a shorter clip, or export with a larger --max-seconds",
            )
        return room


class _Run:
    """The state of one request while it is spoken."""

    def __init__(self, pipeline: Pipeline, request: Request, room: int) -> None:
        self._stages = pipeline.stages
        self._audio, self._synthesis = pipeline.stages.audio, pipeline.stages.synthesis
        self._encode = pipeline.encode
        self._request = request
        self._room = room
        self._clock = StageClock()
        self._clock.seconds["frontend"] = request.frontend_seconds
        self._waiting: deque[_Piece | Pause] = deque()  # what is known of the text to come
        self._warnings: list[str] = []
        self._retries = 0
        self._spoken_seconds = 0.0
        self._number = 0  # of the piece that is spoken now, from 0
        self._read_characters = 0
        self._done = 0.0

    def prepare(self) -> None:
        """Read up to the first piece. Raises: TextError if there is nothing to say."""
        text = self._request.text
        with self._clock.stage("frontend"):
            prompt = self._request.prompt
            system_ids = self._encode(prompt.text) if prompt.text else []
            self._prompt_ids = [*system_ids, *prompt.transcript_ids]
            longest = int(self._room / self._audio.token_rate / EXPECTED_SECONDS_PER_UNIT)
            self._source = self._pieces(min(LONGEST, max(1, longest)))
            first = next((item for item in self._from_source() if isinstance(item, _Piece)), None)
        if not text.strip():
            raise TextError("the text is empty", "give at least one word")
        if first is None:
            raise TextError(
                f"there is nothing to speak in {_quote(text)}", "give at least one letter or digit"
            )

    def audio(self) -> Iterator[Audio]:
        """Speak what `prepare` put in line and what comes behind it."""
        while (item := self._next()) is not None:
            if isinstance(item, Pause):
                yield self._silence(item)
                continue
            piece = item
            self._tell("speech_lm", piece)
            with self._clock.stage("frontend"):
                parts = self._parts(piece)
            with self._clock.stage("speech_lm"):
                speech = make_speech(
                    self._stages,
                    self._request.prompt,
                    self._prompt_ids,
                    piece.ids,
                    seed=self._request.seed,
                    piece=self._number,
                    room=self._room,
                    can_be_cut=bool(parts),
                    retries=self._request.retries,
                )
            self._retries += speech.retries
            if parts and len(speech.tokens) >= self._room:
                log.info("piece %d filled all room and is cut", self._number + 1)
                self._retries += 1
                self._waiting.extendleft(reversed(parts))
            else:
                yield self._finish(piece, speech)
            self._number += 1
        if self._request.progress:
            self._request.progress("done", 1.0, self._spoken_seconds)

    def shown(self) -> Iterator[str | Pause | Note]:
        """The same pieces and pauses, and the notes before each."""
        while (item := self._next()) is not None:
            yield from map(Note, self._warnings)
            self._warnings.clear()
            yield item if isinstance(item, Pause) else item.text
        yield from map(Note, self._warnings)

    def _next(self) -> _Piece | Pause | None:
        """What comes next; reads two pieces ahead, so that the last one is known as such."""
        with self._clock.stage("frontend"):
            while len(self._waiting) < _READ_AHEAD:
                if next(self._from_source(), None) is None:
                    break
        return self._waiting.popleft() if self._waiting else None

    def _from_source(self) -> Iterator[_Piece | Pause]:
        """Puts the next pieces in line, one a step."""
        for item in self._source:
            if isinstance(item, _Piece) and not writing_systems.has_speech(item.text):
                self._warnings.append(f"not spoken, no letter or digit: {_quote(item.text)}")
                continue
            self._waiting.append(item)
            yield item

    def _pieces(self, longest: int) -> Iterator[_Piece | Pause]:
        """Pieces of what lies between two pauses, and the pauses."""
        items = self._request.read(self._request.text)
        pauses: list[Pause] = []

        def sentences() -> Iterator[str]:
            for item in items:
                if isinstance(item, Pause):
                    pauses.append(item)
                    return
                if isinstance(item, Note):
                    self._warnings.append(item.text)
                else:
                    self._read_characters += len(item.text)
                    yield item.text

        soon = True  # the first piece, until there is one
        while True:
            for part in merge_sentences(sentences(), self._count, longest=longest, soon=soon):
                yield _Piece(part, self._encode(part))
                soon = False
            if not pauses:
                return
            yield pauses.pop()

    def _count(self, text: str) -> int:
        return len(self._encode(text))

    def _parts(self, piece: _Piece) -> list[_Piece]:
        """Shorter pieces of `piece`, if it may outgrow the room and can be cut; else none."""
        _, most = token_limits(self._synthesis, len(piece.ids))
        if most <= self._room:
            return []
        longest = piece.units * 4 // 5  # sentences are gathered to two thirds of it: about a half
        parts = split_sentences(piece.text, self._count, longest=max(1, longest))
        return [_Piece(part, self._encode(part)) for part in parts] if len(parts) > 1 else []

    def _silence(self, pause: Pause) -> Audio:
        """The pause as audio."""
        rate = self._audio.sample_rate
        return self._report(np.zeros(round(pause.seconds * rate), np.float32))

    def _finish(self, piece: _Piece, speech: Speech) -> Audio:
        """Speech tokens to audio. Raises: SynthesisError without speech or for broken numbers."""
        synthesis, prompt = self._synthesis, self._request.prompt
        if not speech.tokens:
            raise _nothing_spoken("no speech", piece, speech)
        if set(speech.tokens) <= set(synthesis.silent_tokens):
            raise _nothing_spoken("nothing but silence", piece, speech)
        self._tell("flow", piece)
        with self._clock.stage("flow"):
            mel = self._stages.tokens_to_mel(
                shorten_silence(speech.tokens, synthesis.silent_tokens, synthesis.silent_run_limit),
                prompt_tokens=prompt.tokens,
                prompt_mel=prompt.mel,
                embedding=prompt.embedding,
                steps=synthesis.solver_steps,
            )
        _require_finite(mel, "flow")
        self._tell("vocoder", piece)
        with self._clock.stage("vocoder"):
            samples = self._vocode(hold_edges(change_speed(mel, self._request.speed)))
        samples = cut_edges(samples, self._audio.samples_per_frame)
        if is_silent(samples):  # of models whose silent tokens are not known
            raise _nothing_spoken("nothing but silence", piece, speech)
        return self._deliver(samples, speech)

    def _vocode(self, mel: Floats) -> Floats:
        """Waveform of log-mel [mel bins, T], made of a softer mel where the vocoder would clip.

        Raises: SynthesisError for values that are not finite.
        """
        for softer in range(_MOST_SOFTER + 1):
            samples = self._stages.mel_to_waveform(mel - np.float32(softer * _SOFTER))
            _require_finite(samples, "vocoder")
            if not is_clipped(samples):
                break
        if softer:
            self._warnings.append(
                f"piece {self._number + 1}: the vocoder clipped; made again, softer"
            )
        return samples

    def _deliver(self, samples: Floats, speech: Speech) -> Audio:
        faded = fade_edges(samples, self._audio.sample_rate)
        return self._report(faded, len(speech.tokens), 1, speech.warnings)

    def _report(
        self, samples: Floats, tokens: int = 0, sentences: int = 0, warnings: tuple[str, ...] = ()
    ) -> Audio:
        """The audio with its report; what is counted for the next piece starts anew."""
        samples, rate = self._request.delivery.apply(samples, self._audio.sample_rate)
        report = Report(
            seconds_audio=len(samples) / rate,
            first_audio_s=time.perf_counter() - self._request.started,
            stages=self._clock.seconds,
            speech_tokens=tokens,
            sentences=sentences,
            retries=self._retries,
            warnings=(*self._warnings, *warnings),
            ends_text=not self._waiting,
        )
        self._spoken_seconds += report.seconds_audio
        self._clock, self._warnings, self._retries = StageClock(), [], 0
        return Audio(samples, rate, report)

    def _tell(self, stage: str, piece: _Piece) -> None:
        if self._request.progress is None:
            return
        known = [piece, *(item for item in self._waiting if isinstance(item, _Piece))]
        ahead = sum(item.units for item in known)
        unread = max(0, len(self._request.text) - self._read_characters)
        left = ahead * (1 + unread / max(1, sum(len(item.text) for item in known)))
        seconds = left * EXPECTED_SECONDS_PER_UNIT / self._request.speed
        share = _DONE_BEFORE[stage] * piece.units * EXPECTED_SECONDS_PER_UNIT / self._request.speed
        done = (self._spoken_seconds + share) / (self._spoken_seconds + seconds)
        self._done = max(self._done, min(1.0, done))  # the estimates may turn out too low
        self._request.progress(stage, self._done, self._spoken_seconds + seconds)


def _nothing_spoken(what: str, piece: _Piece, speech: Speech) -> SynthesisError:
    attempts = "an attempt" if speech.retries == 0 else f"{speech.retries + 1} attempts"
    return SynthesisError(
        f"{what} came of {_quote(piece.text)} in {attempts}",
        "try another --seed or speaker, or reword the text",
    )


def _require_finite(array: Floats, stage: str) -> None:
    if not np.isfinite(array).all():
        raise SynthesisError(
            f"the {stage} put out values that are not finite",
            "check the bundle with `cosyvoice-cpu verify`; its weights may be damaged",
        )


def _quote(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 40 else text[:37] + "...")
