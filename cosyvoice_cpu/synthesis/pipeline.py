"""Text to audio, piece by piece, on any implementation of the stage API.

Each piece is spoken by itself with the same prompt, as in the original, whose callers put the
pieces one behind the other without a pause: the speech LM makes the silence at the end of a
sentence. So do we. The vocoder gets some frames more at either end, so that silence there is
silent, and 5 ms at either end are faded so that a join can't click.

A piece that turns out longer than expected is cut and spoken again, so that no text is lost.
`synthesis.streaming` speaks the same pieces chunk by chunk.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.frontend.reading import Note, Pause
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.pieces import Encode, Piece, TextPieces
from cosyvoice_cpu.synthesis.postprocessing import (
    change_speed,
    cut_edges,
    fade_edges,
    hold_edges,
    is_clipped,
    is_silent,
    require_finite,
)
from cosyvoice_cpu.synthesis.report import Report, StageClock
from cosyvoice_cpu.synthesis.request import Request
from cosyvoice_cpu.synthesis.retries import Speech, make_speech, nothing_spoken
from cosyvoice_cpu.synthesis.streaming import AudioStream

log = logging.getLogger(__name__)

_SOFTER, _MOST_SOFTER = float(np.log(2.0)), 2  # 6 dB in log-mel, and how often


class Pipeline:
    """Speaks requests. Holds nothing of a request, so one pipeline serves several threads."""

    def __init__(self, stages: Stages, encode: Encode) -> None:
        self.stages = stages
        self.encode = encode

    def speak(self, request: Request) -> Generator[Audio, None, None]:
        """Audio of each piece or pause as soon as it is ready, with its report.

        Raises, at once: TextError if there is nothing to say, SynthesisError if the prompt leaves
        no room. While iterating: SynthesisError if nothing or silence alone comes of a piece or a
        network's output is not finite, TextError for ids outside the model's table.
        """
        clock = StageClock(frontend=request.frontend_seconds)
        return _Run(self.stages, self._prepared(request, clock), request, clock).audio()

    def stream(self, request: Request, workers: int) -> AudioStream:
        """Audio of each chunk as soon as it is final. Raises: as speak.

        `workers` is the number of threads that compute (`synthesis.streaming`).
        """
        clock = StageClock(frontend=request.frontend_seconds)
        pieces = self._prepared(request, clock)
        return AudioStream.start(self.stages, pieces, request, clock, workers)

    def show(self, request: Request) -> Iterator[str | Pause | Note]:
        """The pieces as the model gets them, pauses and notes, without speaking. Raises: as speak.

        A piece that turns out too long for the model may be cut further when it is spoken.
        """
        return _shown(self._prepared(request, StageClock()))

    def _prepared(self, request: Request, clock: StageClock) -> TextPieces:
        pieces = TextPieces(self.stages, self.encode, request)
        with clock.stage("frontend"):
            pieces.prepare()
        return pieces


def _shown(pieces: TextPieces) -> Iterator[str | Pause | Note]:
    """The same pieces and pauses, and the notes before each."""
    while (item := pieces.next()) is not None:
        yield from map(Note, pieces.take_warnings())
        yield item if isinstance(item, Pause) else item.text
    yield from map(Note, pieces.take_warnings())


class _Run:
    """The state of one request while it is spoken."""

    def __init__(
        self, stages: Stages, pieces: TextPieces, request: Request, clock: StageClock
    ) -> None:
        self._stages, self._pieces, self._request = stages, pieces, request
        self._audio, self._synthesis = stages.audio, stages.synthesis
        self._clock = clock
        self._warnings: list[str] = []
        self._retries = 0
        self._spoken_seconds = 0.0
        self._number = 0  # of the piece that is spoken now, from 0

    def audio(self) -> Generator[Audio, None, None]:
        """Speak what is in line and what comes behind it."""
        while (item := self._next()) is not None:
            if isinstance(item, Pause):
                yield self._silence(item)
                continue
            piece = item
            self._tell("speech_lm", piece)
            with self._clock.stage("frontend"):
                parts = self._pieces.parts(piece)
            with self._clock.stage("speech_lm"):
                speech = make_speech(
                    self._stages,
                    self._request.prompt,
                    self._pieces.prompt_ids,
                    piece.ids,
                    seed=self._request.seed,
                    piece=self._number,
                    room=self._pieces.room,
                    can_be_cut=bool(parts),
                    retries=self._request.retries,
                )
            self._retries += speech.retries
            if parts and len(speech.tokens) >= self._pieces.room:
                log.info("piece %d filled all room and is cut", self._number + 1)
                self._retries += 1
                self._pieces.put_back(parts)
            else:
                yield self._finish(piece, speech)
            self._number += 1
        if self._request.progress:
            self._request.progress("done", 1.0, self._spoken_seconds)

    def _next(self) -> Piece | Pause | None:
        with self._clock.stage("frontend"):
            return self._pieces.next()

    def _tell(self, stage: str, piece: Piece) -> None:
        self._pieces.tell(stage, piece, self._spoken_seconds)

    def _silence(self, pause: Pause) -> Audio:
        """The pause as audio."""
        rate = self._audio.sample_rate
        return self._report(np.zeros(round(pause.seconds * rate), np.float32))

    def _finish(self, piece: Piece, speech: Speech) -> Audio:
        """Speech tokens to audio. Raises: SynthesisError without speech or for broken numbers."""
        synthesis, prompt = self._synthesis, self._request.prompt
        if not speech.tokens:
            raise nothing_spoken("no speech", piece.text, speech.retries)
        if set(speech.tokens) <= set(synthesis.silent_tokens):
            raise nothing_spoken("nothing but silence", piece.text, speech.retries)
        self._tell("flow", piece)
        with self._clock.stage("flow"):
            mel = self._stages.tokens_to_mel(
                shorten_silence(speech.tokens, synthesis.silent_tokens, synthesis.silent_run_limit),
                prompt_tokens=prompt.tokens,
                prompt_mel=prompt.mel,
                embedding=prompt.embedding,
                preset=synthesis.preset(self._request.preset),
            )
        require_finite(mel, "flow")
        self._tell("vocoder", piece)
        with self._clock.stage("vocoder"):
            samples = self._vocode(hold_edges(change_speed(mel, self._request.speed)))
        samples = cut_edges(samples, self._audio.samples_per_frame)
        if is_silent(samples):  # of models whose silent tokens are not known
            raise nothing_spoken("nothing but silence", piece.text, speech.retries)
        return self._deliver(samples, speech)

    def _vocode(self, mel: Floats) -> Floats:
        """Waveform of log-mel [mel bins, T], made of a softer mel where the vocoder would clip.

        Raises: SynthesisError for values that are not finite.
        """
        for softer in range(_MOST_SOFTER + 1):
            samples = self._stages.mel_to_waveform(mel - np.float32(softer * _SOFTER))
            require_finite(samples, "vocoder")
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
            warnings=(*self._pieces.take_warnings(), *self._warnings, *warnings),
            ends_text=self._pieces.ended,
        )
        self._spoken_seconds += report.seconds_audio
        self._clock, self._warnings, self._retries = StageClock(), [], 0
        return Audio(samples, rate, report)
