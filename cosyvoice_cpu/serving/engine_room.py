"""Threads that compute requests, and the bounded line in front of them.

A worker computes one block of one job and then looks for the job whose listener runs out of sound
first: one that has none yet goes before all others, and of several streams none stalls while
another is minutes ahead. A job that is ahead of its listener by a full queue rests. Nobody polls:
whoever changes something wakes whoever waits for it.

With worker processes each thread's step is computed on a seat: a job stays on the seat where it was
opened, and one whose seat is taken lets a less urgent one pass. A new job takes the free seat with
the fewest jobs.

All state is changed under one lock, which is never held while something is computed.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable

from cosyvoice_cpu.errors import CosyVoiceError
from cosyvoice_cpu.serving.job import Block, Cancelled, Job, State

log = logging.getLogger(__name__)

SERVER_STOPS = "the server stops"


class Refused(CosyVoiceError):
    """A request that is not begun; the same one may be welcome after `retry_after` seconds."""

    def __init__(self, what: str, hint: str, retry_after: float) -> None:
        super().__init__(what, hint)
        self.retry_after = retry_after


class LineFull(Refused):
    """There are as many requests as may wait."""


class Unavailable(Refused):
    """The request would wait for too long, or the server stops."""


class EngineRoom:
    """`workers` threads, and at most `queue` jobs beyond those that they can run at once."""

    def __init__(
        self,
        workers: int,
        queue: int,
        *,
        has_seats: bool = False,
        on_end: Callable[[Job], None] | None = None,
    ) -> None:
        """`on_end` is called once for each job that ended, from any thread.

        `has_seats`: there are `workers` seats, each for one step at a time.
        """
        self.workers = workers
        self.capacity = workers + queue
        self._on_end = on_end
        self._free = set(range(workers)) if has_seats else None  # seats
        self._served = [0] * workers  # jobs that each seat was given so far
        self._changed = threading.Condition()
        self._ready: list[tuple[float, int, Job]] = []  # a heap; jobs that left it stay behind
        self._numbers = itertools.count()
        self._jobs: set[Job] = set()  # all that have not ended
        self._waiters: list[asyncio.Future[None]] = []  # for the next end of a job
        self._open, self._stopping = True, False
        self._threads = [
            threading.Thread(target=self._work, name=f"synthesis-{number}", daemon=True)
            for number in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Put `job` in line. Raises: LineFull, Unavailable once the room is closed."""
        with self._changed:
            if not self._open:
                raise Unavailable(SERVER_STOPS, "ask again when it has started", 5.0)
            if len(self._jobs) >= self.capacity:
                raise LineFull(
                    f"{len(self._jobs)} requests are being served or wait, and no more may",
                    "ask again a little later",
                    self._backlog() / len(self._jobs),
                )
            job.times.submitted = time.monotonic()
            self._jobs.add(job)
            self._make_ready(job)

    def backlog(self) -> float:
        """Seconds of computing that are expected of all jobs here, shared by the workers."""
        with self._changed:
            return self._backlog()

    def seconds_before(self, within: float) -> float:
        """Until a worker is free of what can't be put off for `within` seconds, as expected.

        What is for later does not count, as of a long text that is ahead of its listener.
        """
        now = time.monotonic()
        with self._changed:
            jobs = sorted(self._jobs, key=lambda job: (job.times.step_began is None, job.runs_dry))
            loads = [0.0] * self.workers
            for job in jobs:
                heapq.heapreplace(loads, loads[0] + job.seconds_due(now, within))
        return loads[0]

    def counts(self) -> dict[State, int]:
        """How many jobs are in each state."""
        with self._changed:
            states = [job.state for job in self._jobs]
        return {state: states.count(state) for state in State if state is not State.ENDED}

    async def an_end(self) -> None:
        """Wait until a job ends."""
        waiter = asyncio.get_running_loop().create_future()
        with self._changed:
            self._waiters.append(waiter)
        await waiter

    async def blocks(self, job: Job) -> AsyncGenerator[Block, None]:
        """The job's blocks as they come. Raises: what ended the job early; Cancelled."""
        try:
            while True:
                with self._changed:
                    block, ended = job.take(), job.state is State.ENDED
                    if job.state is State.PARKED and not job.is_full:
                        self._make_ready(job)
                if block is not None:
                    yield block
                elif ended:
                    if job.error is not None:
                        raise job.error
                    return
                else:
                    await job.news()
        finally:
            self.cancel(job, "nobody reads it")

    def cancel(self, job: Job, why: str) -> None:
        """Stop `job`: at once if it waits, after the step under way if it is being computed."""
        with self._changed:
            if job.state is State.ENDED or job.why_cancelled is not None:
                return
            job.why_cancelled = why
            job.blocks.clear()
            job.waiting_bytes = 0
            halt, has_ended = None, False
            if job.state is State.RUNNING:
                halt = job.halt
            elif job.stream is not None:
                self._make_ready(job)  # a worker closes its stream
            else:
                self._end(job, Cancelled(why))
                has_ended = True
        if halt is not None:
            halt()
        if has_ended:
            self._tell_end(job)

    def close(self) -> None:
        """Take no new jobs; those that are here go on."""
        with self._changed:
            self._open = False

    def cancel_all(self, why: str = SERVER_STOPS) -> None:
        """Stop all jobs."""
        with self._changed:
            jobs = list(self._jobs)
        for job in jobs:
            self.cancel(job, why)

    def stop(self, timeout: float) -> bool:
        """End all jobs and threads. Returns whether they ended within `timeout` seconds."""
        self.close()
        self.cancel_all()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        end = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            seat = job.seat
            self._compute(job)
            if self._free is not None and seat is not None:
                with self._changed:
                    self._free.add(seat)
                    self._changed.notify_all()  # jobs that wait for it, whoever takes them

    def _next(self) -> Job | None:
        with self._changed:
            while True:
                if (job := self._most_urgent()) is not None:
                    job.state = State.RUNNING
                    return job
                if self._stopping:
                    return None
                self._changed.wait()

    def _compute(self, job: Job) -> None:
        """Blocks of `job` until it ends, rests, or another one is more urgent."""
        goes_on = True
        while goes_on:
            started = job.times.step_began = time.monotonic()
            try:
                job.check()
                if job.stream is None:
                    job.stream = job.open(job)
                block = next(job.stream, None)
                job.check()
            except BaseException as error:  # of one request; the thread lives on
                self._leave(job, error)
                return
            finally:
                job.times.step_began = None
                job.times.computing += time.monotonic() - started
            if block is None:
                self._leave(job, None)
                return
            with self._changed:
                job.deliver(block)
                goes_on = self._goes_on(job)

    def _goes_on(self, job: Job) -> bool:
        if job.is_full:
            job.state = State.PARKED
            return False
        while self._ready and self._ready[0][2].state is not State.WAITING:
            heapq.heappop(self._ready)
        if self._ready and self._ready[0][0] < job.runs_dry:
            self._make_ready(job)
            return False
        return True

    def _leave(self, job: Job, error: BaseException | None) -> None:
        if job.stream is not None:
            with contextlib.suppress(Exception):
                job.stream.close()
        with self._changed:
            self._end(job, error)
        self._tell_end(job)

    # The rest is called under the lock.

    def _most_urgent(self) -> Job | None:
        """Taken out of the line: the job to be computed now, with its seat if there are any."""
        passed: list[tuple[float, int, Job]] = []
        found = None
        while found is None and self._ready:
            entry = heapq.heappop(self._ready)
            job = entry[2]
            if job.state is not State.WAITING:
                continue
            if self._free is None or self._sit(job):
                found = job
            else:
                passed.append(entry)
        for entry in passed:
            heapq.heappush(self._ready, entry)
        return found

    def _sit(self, job: Job) -> bool:
        """Give the job its seat, or one if it has none yet; whether that is free."""
        assert self._free is not None
        if job.seat is None:
            if not self._free:
                return False
            on = [other.seat for other in self._jobs]
            job.seat = min(self._free, key=lambda seat: (on.count(seat), self._served[seat]))
            self._served[job.seat] += 1
        if job.seat not in self._free:
            return False
        self._free.remove(job.seat)
        return True

    def _make_ready(self, job: Job) -> None:
        job.state = State.WAITING
        heapq.heappush(self._ready, (job.runs_dry, next(self._numbers), job))
        self._changed.notify()

    def _end(self, job: Job, error: BaseException | None) -> None:
        job.state, job.error = State.ENDED, error
        job.stream = job.halt = None
        job.times.ended = time.monotonic()
        self._jobs.discard(job)
        job.tell()
        for waiter in self._waiters:
            with contextlib.suppress(RuntimeError):  # its loop is closed
                waiter.get_loop().call_soon_threadsafe(_set_result, waiter)
        self._waiters.clear()

    def _backlog(self) -> float:
        now = time.monotonic()
        return sum(job.seconds_left(now) for job in self._jobs) / self.workers

    def _tell_end(self, job: Job) -> None:
        if self._on_end is not None:
            try:
                self._on_end(job)
            except Exception:
                log.exception("a job's end could not be recorded")


def _set_result(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
