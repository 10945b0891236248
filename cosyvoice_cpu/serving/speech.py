"""What is to be said and how, from every way in: checked, costed and put in line."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Generator, Iterator
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
from cosyvoice_cpu.errors import CosyVoiceError, TextError
from cosyvoice_cpu.frontend.characters import check_characters
from cosyvoice_cpu.frontend.language import check_language
from cosyvoice_cpu.serving.cost import CostModel, Spent
from cosyvoice_cpu.serving.encoding import check_format, encoded, encoded_whole
from cosyvoice_cpu.serving.engine_room import EngineRoom, LineFull, Unavailable
from cosyvoice_cpu.serving.errors import RequestError, is_ours
from cosyvoice_cpu.serving.job import Block, Cancelled, Job
from cosyvoice_cpu.serving.metrics import Metrics
from cosyvoice_cpu.serving.settings import Settings
from cosyvoice_cpu.serving.voices import Voices
from cosyvoice_cpu.serving.worker_pool import RemoteAudio, Seat, WorkerPool
from cosyvoice_cpu.synthesis.synthesizer import SpeakOptions, Synthesizer, check_request

log = logging.getLogger(__name__)

WARM_UP = "One, two, three."


@dataclass(frozen=True)
class Speech:
    """A text and how to say it. `voice` None is the first that there is."""

    text: str
    voice: str | None = None
    audio_format: str = "mp3"
    speed: float = 1.0
    instructions: str | None = None
    seed: int = 0
    language: str | None = None
    preset: str | None = None
    is_whole: bool = False  # all bytes at the end, with the file's length in its header


@dataclass
class SpeechService:
    """Takes speeches and hands them to the engine room."""

    synthesizer: Synthesizer
    voices: Voices
    settings: Settings
    presets: tuple[str, ...] = (DEFAULT_PRESET,)
    cost: CostModel = field(default_factory=CostModel)
    pool: WorkerPool | None = None  # processes that speak in place of `synthesizer`

    def __post_init__(self) -> None:
        self._speeches: dict[Job, Speech] = {}
        self.room = EngineRoom(
            self.settings.workers,
            self.settings.queue,
            has_seats=self.pool is not None,
            on_end=self._ended,
        )
        self.metrics = Metrics(self.room, self.cost, self.pool)
        self.warmed = threading.Event()
        self.is_closing = False

    @property
    def sample_rate(self) -> int:
        """Hz of all audio."""
        return self.synthesizer.sample_rate

    def check(self, speech: Speech) -> Speech:
        """`speech` with its voice's name. Raises: RequestError naming the field that is wrong."""
        with _naming("input"):
            _check_text(speech.text, self.settings.max_characters)
        return self.check_manner(speech)

    def check_manner(self, speech: Speech) -> Speech:
        """The same, but for its text."""
        with _naming("response_format"):
            check_format(speech.audio_format)
        with _naming("speed"):
            check_request(speed=speech.speed)
        with _naming("seed"):
            check_request(seed=speech.seed)
        with _naming("language"):
            check_language(speech.language)
        with _naming("instructions"):
            check_characters(speech.instructions or "", "the instruction")
            check_request(instruct=speech.instructions)
        if speech.preset is not None and speech.preset not in self.presets:
            raise RequestError(
                f"there is no preset {speech.preset[:40]!r}",
                f"presets: {', '.join(self.presets)}",
                param="preset",
            )
        return replace(speech, voice=self.voices.name_of(speech.voice))

    @asynccontextmanager
    async def speaking(
        self, speech: Speech, *, is_patient: bool = False
    ) -> AsyncGenerator[tuple[Job, AsyncGenerator[Block, None]], None]:
        """The job that makes a checked `speech`, and its blocks; it is cancelled at the end.

        `is_patient` waits where there is no place, for what belongs to a conversation that was
        taken. Raises: LineFull, and Unavailable if it would wait for too long or the server stops.
        """
        job = await self._start_in_time(speech) if is_patient else self._start_now(speech)
        limit = self.settings.request_seconds
        timer = asyncio.get_running_loop().call_later(
            limit, self.room.cancel, job, f"it took more than {limit:g} s"
        )
        try:
            async with aclosing(self.room.blocks(job)) as blocks:
                yield job, blocks
        finally:
            timer.cancel()

    def _start_now(self, speech: Speech) -> Job:
        longest = self.settings.max_wait
        wait = self.room.seconds_before(longest)
        if wait > longest:
            raise Unavailable(
                f"{wait:.1f} s of work come first, and this server lets a text wait for"
                f" {longest:g} s",
                "ask again later",
                wait - longest,
            )
        return self._submit(speech)

    async def _start_in_time(self, speech: Speech) -> Job:
        while True:
            try:
                return self._submit(speech)
            except LineFull:
                await self.room.an_end()

    def _submit(self, speech: Speech) -> Job:
        cost = self.cost.expected(speech.text, speech.speed)
        job = Job(
            partial(self._blocks, speech),
            cost.seconds,
            first_seconds=None if speech.is_whole else cost.first_seconds,
            rtf=cost.rtf_after,
        )
        self._speeches[job] = speech
        try:
            self.room.submit(job)
        except BaseException:
            del self._speeches[job]
            raise
        return job

    def usage(self, speech: Speech, job: Job) -> dict[str, int]:
        """What `job` took and gave: text ids and speech tokens."""
        read = self.synthesizer.count_text_ids(speech.text)
        made = job.speech_tokens
        return {"input_tokens": read, "output_tokens": made, "total_tokens": read + made}

    async def warm_up(self) -> None:
        """Speak a few words, so that the first client needs not wait for graphs to be opened.

        Raises: what the bundle's first speech raises.
        """
        await self._say_a_few_words()
        # The first one has left the weights as kernels want them: the other processes map them.
        others = self.settings.workers - 1 if self.pool is not None else 0
        await asyncio.gather(*(self._say_a_few_words() for _ in range(others)))
        self.warmed.set()

    async def _say_a_few_words(self) -> None:
        words = Speech(WARM_UP, self.voices.name_of(None), "pcm")
        async with self.speaking(words, is_patient=True) as (_, blocks):
            async for _ in blocks:
                pass

    def _blocks(self, speech: Speech, job: Job) -> Generator[Block, None, None]:
        options: SpeakOptions = {
            "seed": speech.seed,
            "instruct": speech.instructions,
            "speed": speech.speed,
            "language": speech.language,
            "preset": speech.preset or DEFAULT_PRESET,
            "progress": lambda *_: job.check(),
        }
        synthesizer: Synthesizer | Seat = self.synthesizer
        if self.pool is not None and job.seat is not None:
            synthesizer = self.pool.seat(job.seat)
        if speech.is_whole:  # all of the text is there to be looked at
            with closing(synthesizer.pieces(speech.text, speech.voice, **options)) as pieces:
                if isinstance(pieces, RemoteAudio):
                    job.halt = pieces.close
                yield from encoded_whole(pieces, speech.audio_format)
            return
        # The engine room decides which of several streams goes on: none may compute by itself.
        stream = synthesizer.stream(speech.text, speech.voice, workers=0, **options)
        with closing(stream):
            job.halt = stream.close
            job.check()
            yield from encoded(stream, speech.audio_format, self.sample_rate)

    def _ended(self, job: Job) -> None:
        speech = self._speeches.pop(job, None)
        if speech is None:
            return
        outcome = "done" if job.error is None else "failed"
        if isinstance(job.error, Cancelled):
            outcome = "cancelled"
        elif job.error is not None and is_ours(job.error):
            log.error("a speech failed", exc_info=job.error)
        self.metrics.spoken(job, outcome)
        if outcome == "done":
            first = Spent(job.first_seconds_audio, job.times.computing_first)
            self.cost.learn(
                speech.text,
                speech.speed,
                Spent(job.seconds_audio, job.times.computing),
                None if speech.is_whole else first,
            )


@contextmanager
def _naming(param: str) -> Iterator[None]:
    """Turns what a check raises into a RequestError about the field `param`."""
    try:
        yield
    except CosyVoiceError as error:
        raise RequestError(error.what, error.hint, param=param) from error


def _check_text(text: str, most: int) -> None:
    if len(text) > most:
        raise TextError(f"the text has {len(text)} characters, at most {most} are taken", "cut it")
    if not text.strip():
        raise TextError("the text is empty", "give at least one word")
    check_characters(text, "the text")
