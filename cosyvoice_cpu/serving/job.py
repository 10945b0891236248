"""One request in the engine room: computed by a thread, read by a coroutine.

The two meet in a queue of blocks that is bounded in bytes. A job whose listener is slow is parked:
its stream rests where it is and the thread goes on with another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from enum import Enum, auto

from cosyvoice_cpu.errors import CosyVoiceError

MOST_WAITING_BYTES = 1 << 20  # 22 s of PCM, a minute and more of what is encoded


class Cancelled(CosyVoiceError):
    """The work was stopped: the client left, the server stops, or a time limit was reached."""


@dataclass(frozen=True)
class Block:
    """`content` as it goes to the client, and the seconds of audio that it makes audible."""

    content: bytes
    seconds: float
    speech_tokens: int = 0


Blocks = Generator[Block, None, None]


class State(Enum):
    """Where a job is. Only the engine room changes it, under its lock."""

    WAITING = auto()  # for a thread
    RUNNING = auto()  # on a thread
    PARKED = auto()  # for the client to read what there is
    ENDED = auto()


@dataclass
class Times:
    """Seconds of `time.monotonic`, None for what has not happened."""

    submitted: float = 0.0
    first_block: float | None = None
    ended: float | None = None
    step_began: float | None = None  # the one under way
    computing: float = 0.0  # duration of the finished steps
    computing_first: float = 0.0  # of those until there was sound


@dataclass(eq=False)
class Job:
    """Made in the event loop's thread. `open` is called by a worker with it, and gives the blocks.

    It may leave in `halt` what ends a step under way, from any thread and without waiting.
    """

    open: Callable[[Job], Blocks]
    expected_seconds: float  # of computing, on one worker
    most_waiting_bytes: int = MOST_WAITING_BYTES
    first_seconds: float | None = None  # of these until there is sound; None: all
    rtf: float = 0.0  # expected behind that

    state: State = State.WAITING
    times: Times = field(default_factory=Times)
    seconds_audio: float = 0.0
    first_seconds_audio: float = 0.0  # that came with the first sound
    speech_tokens: int = 0
    error: BaseException | None = None  # why it ended early
    why_cancelled: str | None = None
    halt: Callable[[], None] | None = None
    seat: int | None = None  # of the worker process that speaks it, once one does

    def __post_init__(self) -> None:
        self.stream: Blocks | None = None
        self.blocks: deque[Block] = deque()
        self.waiting_bytes = 0
        self._delivered = 0  # blocks
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()

    def check(self) -> None:
        """Called between two steps of the work. Raises: Cancelled if it is not wanted any more."""
        if self.why_cancelled is not None:
            raise Cancelled(self.why_cancelled)

    @property
    def runs_dry(self) -> float:
        """When a listener who plays the audio as it comes has none left.

        One who has none yet has waited since the job came; a cancelled job is ended before all.
        """
        if self.why_cancelled is not None:
            return 0.0
        if self.times.first_block is None:
            return self.times.submitted
        return self.times.first_block + self.seconds_audio

    @property
    def is_full(self) -> bool:
        """Whether more waits than is to be held in memory."""
        return self.waiting_bytes >= self.most_waiting_bytes

    def seconds_left(self, now: float) -> float:
        """Of computing, as expected."""
        return _left(self.expected_seconds, self.times.computing + self._seconds_of_step(now))

    def seconds_due(self, now: float, within: float) -> float:
        """Of computing that can't be put off for `within` seconds from `now`, as expected.

        That is its first sound, and then what keeps its listener from running dry until then. A
        step that has begun is not put off.
        """
        if self.why_cancelled is not None or self.state is State.PARKED:
            return 0.0
        under_way = self._seconds_of_step(now)
        if self.times.first_block is None:
            first = self.expected_seconds if self.first_seconds is None else self.first_seconds
            due = _left(first, self.times.computing + under_way)
            due += self.rtf * max(0.0, within - due)
        else:
            block = self.seconds_audio / self._delivered
            lacking = max(0.0, within - (self.runs_dry - now))
            due = self.rtf * block * math.ceil(lacking / block) - under_way if block else 0.0
            if self.times.step_began is not None:
                due = max(due, _left(self.rtf * block, under_way))
        return min(due, self.seconds_left(now))

    def _seconds_of_step(self, now: float) -> float:
        """How long the step under way has taken."""
        began = self.times.step_began
        return 0.0 if began is None else max(0.0, now - began)

    def deliver(self, block: Block) -> None:
        """Put a block in the queue. For the engine room, under its lock."""
        self.seconds_audio += block.seconds
        self.speech_tokens += block.speech_tokens
        self._delivered += 1
        if block.content:  # an encoder may keep the first ones
            if self.times.first_block is None:
                self.times.first_block = time.monotonic()
                self.times.computing_first = self.times.computing
                self.first_seconds_audio = self.seconds_audio
            self.blocks.append(block)
            self.waiting_bytes += len(block.content)
            self.tell()

    def take(self) -> Block | None:
        """The next block, None if there is none now. For the engine room, under its lock."""
        if not self.blocks:
            return None
        block = self.blocks.popleft()
        self.waiting_bytes -= len(block.content)
        return block

    def tell(self) -> None:
        """Wake the coroutine that reads, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody reads any more
            self._loop.call_soon_threadsafe(self._news.set)

    async def news(self) -> None:
        """Wait for `tell`."""
        await self._news.wait()
        self._news.clear()


def _left(expected: float, done: float) -> float:
    """Something always, since expectations are passed."""
    return max(expected - done, 0.05 * expected)
