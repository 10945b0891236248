"""Text to audio while the speech is still being made: the pieces of a text, chunk by chunk.

    text ─> speech LM ─> tokens ─> flow ─> mel ─> vocoder ─> samples ─> delivery ─> blocks of audio

Each arrow is a generator that reads the one before; `workers` decides which of them have a thread
of their own (`synthesis.background`). Attention is limited to chunks, the prompt and a window, so
the audio is not that of `Pipeline.speak`; it does not depend on threads or times.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import replace
from typing import TypeAlias, TypeVar

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.decoding.silence import SilenceShortener
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.stage_api import Cancelled, FlowStream, Stages
from cosyvoice_cpu.synthesis.audio import Audio
from cosyvoice_cpu.synthesis.background import Background
from cosyvoice_cpu.synthesis.piece_sound import PieceSound
from cosyvoice_cpu.synthesis.pieces import TextPieces, quote
from cosyvoice_cpu.synthesis.report import STAGE_NAMES, Report, StageClock
from cosyvoice_cpu.synthesis.request import Request
from cosyvoice_cpu.synthesis.retries import nothing_spoken
from cosyvoice_cpu.synthesis.stream_delivery import StreamDelivery
from cosyvoice_cpu.synthesis.token_supply import PieceEnd, Tokens, TokenSupply

WINDOW_SECONDS = 3.0  # past that the flow attends to beside the prompt; 0.03 dB from all of it
Item = TypeVar("Item")

_TOKENS_AHEAD, _MELS_AHEAD, _BLOCKS_AHEAD = 64, 2, 4  # items that may wait for the next stage


_Mel = Floats | PieceEnd
_Samples = tuple[Floats, PieceEnd | None]
_Stage: TypeAlias = Generator[Item, None, None]
_Source: TypeAlias = Generator[Item, None, None] | Background[Item]


class AudioStream(Iterator[Audio]):
    """Blocks of audio as they are made."""

    def __init__(self, run: _Run) -> None:
        self._run, self._blocks = run, run.audio()

    def __next__(self) -> Audio:
        return next(self._blocks)

    def close(self) -> None:
        """End the work after the kernel that runs, and wait for that; from any thread.

        Who reads meanwhile finds the end. A stream that is dropped ends likewise.
        """
        self._run.cancel()
        with contextlib.suppress(ValueError):  # another thread reads, and finds the end
            self._blocks.close()

    @classmethod
    def start(
        cls,
        stages: Stages,
        pieces: TextPieces,
        request: Request,
        clock: StageClock,
        workers: int,
    ) -> AudioStream:
        """The stream of a request; nothing is computed before the first block is asked for.

        `workers` threads: 1 has all stages, 2 the speech LM apart, 3 each stage its own. With 0
        who reads computes, and nothing is made before it is asked for.
        """
        return cls(_Run(stages, pieces, request, clock, workers))


async def read_in_threads(stream: AudioStream) -> AsyncIterator[Audio]:
    """`stream` in an event loop, which is free while a block is made.

    It is closed when reading ends, in whichever way.
    """
    try:
        while (block := await asyncio.to_thread(next, stream, None)) is not None:
            yield block
    finally:
        await asyncio.shield(asyncio.to_thread(stream.close))


class _Run:
    """The state of one streamed request."""

    def __init__(
        self,
        stages: Stages,
        pieces: TextPieces,
        request: Request,
        clock: StageClock,
        workers: int,
    ) -> None:
        self._stages, self._pieces, self._request = stages, pieces, request
        self._audio, self._synthesis = stages.audio, stages.synthesis
        self._clock, self._workers = clock, workers
        self._cancelled = threading.Event()
        self._sound_source: Background[_Samples] | None = None
        self._spoken_seconds = 0.0
        self._reported = dict.fromkeys(STAGE_NAMES, 0.0)

    def cancel(self) -> None:
        """End the work after the kernel that runs, and wait for that; from any thread."""
        self._cancelled.set()
        if self._sound_source is not None:
            self._sound_source.close()

    def audio(self) -> Generator[Audio, None, None]:
        """Blocks of audio."""
        supply = TokenSupply(
            *(self._stages, self._pieces, self._request, self._clock),
            spoken_seconds=lambda: self._spoken_seconds,
            cancelled=self._cancelled.is_set,
        )
        tokens: _Source[Tokens] = supply.tokens()
        if self._workers > 1:
            tokens = Background(tokens, ahead=_TOKENS_AHEAD, name="speech-lm")
        mels: _Source[_Mel] = self._mels(tokens)
        if self._workers > 2:
            mels = Background(mels, ahead=_MELS_AHEAD, name="flow")
        sound: _Source[_Samples] = self._sound(mels)
        if self._workers > 0:
            sound = self._sound_source = Background(sound, ahead=_BLOCKS_AHEAD, name="vocoder")
        delivery = StreamDelivery(self._request.delivery, self._audio.sample_rate)
        try:
            for samples, end in sound:
                last = end is not None and end.ends_text
                leaving = delivery.push(samples, last=last)
                if len(leaving) or end:
                    yield self._block(leaving, delivery.rate, end)
            if self._request.progress:
                self._request.progress("done", 1.0, self._spoken_seconds)
        except Cancelled:
            return
        finally:
            self.cancel()
            sound.close()

    def _mels(self, tokens: _Source[Tokens]) -> _Stage[_Mel]:
        """The flow: chunks of log-mel [mel bins, t]; the rest as it comes."""
        chunk = self._audio.tokens_within(self._synthesis.chunk_frames)
        stream: FlowStream | None = None
        with contextlib.closing(tokens):
            for item in tokens:
                if isinstance(item, PieceEnd):
                    if stream is not None:
                        with self._clock.stage("flow"):
                            mel = stream.finish()
                        yield mel
                        stream = None
                    yield item
                else:
                    if stream is None:
                        stream, shortener = self._flow(), self._shortener()
                    kept = shortener.kept(item)
                    for first in range(0, len(kept), chunk):
                        with self._clock.stage("flow"):
                            mel = stream.push(kept[first : first + chunk])
                        if mel.shape[1]:
                            yield mel

    def _flow(self) -> FlowStream:
        prompt = self._request.prompt
        with self._clock.stage("flow"):
            return self._stages.flow_stream(
                prompt_tokens=prompt.tokens,
                prompt_mel=prompt.mel,
                embedding=prompt.embedding,
                preset=self._synthesis.preset(self._request.preset),
                window_seconds=WINDOW_SECONDS,
                cancelled=self._cancelled.is_set,
            )

    def _shortener(self) -> SilenceShortener:
        return SilenceShortener(self._synthesis.silent_tokens, self._synthesis.silent_run_limit)

    def _sound(self, mels: _Source[_Mel]) -> _Stage[_Samples]:
        """The vocoder: samples [n], and behind the last ones the end of the piece."""
        sound: PieceSound | None = None
        with contextlib.closing(mels):
            for item in mels:
                if isinstance(item, PieceEnd) and sound is None:
                    yield np.zeros(round(item.pause * self._audio.sample_rate), np.float32), item
                elif isinstance(item, PieceEnd):
                    assert sound is not None
                    with self._clock.stage("vocoder"):
                        samples = sound.finish()
                    yield samples, _with_sound(item, sound)
                    sound = None
                else:
                    with self._clock.stage("vocoder"):
                        sound = sound or PieceSound(self._stages, self._request.speed)
                        samples = sound.push(item)
                    if len(samples):
                        yield samples, None
                if self._cancelled.is_set():
                    raise Cancelled

    def _block(self, samples: Floats, rate: int, end: PieceEnd | None) -> Audio:
        """The block with its report: what was computed since the last one."""
        now = dict(self._clock.seconds)
        stages = {name: now[name] - self._reported[name] for name in STAGE_NAMES}
        self._reported = now
        end = end or PieceEnd()
        report = Report(
            seconds_audio=len(samples) / rate,
            first_audio_s=time.perf_counter() - self._request.started,
            stages=stages,
            speech_tokens=end.tokens,
            sentences=end.sentences,
            retries=end.retries,
            warnings=end.warnings,
            ends_text=end.ends_text,
        )
        self._spoken_seconds += report.seconds_audio
        return Audio(samples, rate, report)


def stream_workers(workers: int | None) -> int:
    """The number of threads that a stream computes in; None for what suits most machines.

    One, since each kernel uses all cores already: on two cores at full size the first sound came
    after half the time that two threads took, where the speech LM runs ahead of what is waited
    for, and the whole stream was 9 % faster (docs/decisions.md). Raises: UsageError outside 0 to 3.
    """
    if workers is None:
        return 1
    if workers not in (0, 1, 2, 3):
        raise UsageError(f"{workers} threads can't share a stream's stages", "give 0 to 3")
    return workers


def _with_sound(end: PieceEnd, sound: PieceSound) -> PieceEnd:
    """Raises: SynthesisError for a piece of which nothing can be heard."""
    if sound.is_silent:
        raise nothing_spoken("nothing but silence", end.text, end.retries)
    if not sound.clipped:
        return end
    warning = f"{quote(end.text)}: the vocoder clipped"
    return replace(end, warnings=(*end.warnings, warning))
