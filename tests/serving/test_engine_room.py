"""Jobs, workers and readers: order, bounds, cancellation, errors. Each wait has a limit."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import pytest

from cosyvoice_cpu.serving.engine_room import EngineRoom, LineFull, Unavailable
from cosyvoice_cpu.serving.job import Block, Cancelled, Job, State

TIMEOUT = 20.0


def limited(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(work(), TIMEOUT))


@contextmanager
def room_of(workers: int = 1, queue: int = 8, **options: object) -> Iterator[EngineRoom]:
    room = EngineRoom(workers, queue, **options)
    try:
        yield room
    finally:
        assert room.stop(TIMEOUT)


class Script:
    """A stream of `count` blocks that can be held before any of them, and that notes its fate."""

    def __init__(self, count: int, size: int = 10, seconds: float = 1.0) -> None:
        self.count, self.size, self.seconds = count, size, seconds
        self.may_go = threading.Event()
        self.may_go.set()
        self.is_held = threading.Event()
        self.opened, self.made, self.closed = 0, 0, threading.Event()

    def held(self) -> Script:
        self.may_go.clear()
        return self

    def __call__(self, job: Job) -> Iterator[Block]:
        self.opened += 1
        return self._blocks(job)

    def _blocks(self, job: Job) -> Iterator[Block]:
        try:
            for number in range(self.count):
                if not self.may_go.is_set():
                    self.is_held.set()
                    assert self.may_go.wait(TIMEOUT)
                job.check()
                self.made += 1
                yield Block(bytes([number % 256]) * self.size, self.seconds)
        finally:
            self.closed.set()


async def held(script: Script) -> None:
    assert await asyncio.to_thread(script.is_held.wait, TIMEOUT)


async def read(room: EngineRoom, job: Job) -> bytes:
    return b"".join([block.content async for block in room.blocks(job)])


def test_blocks_come_in_order_and_the_job_knows_its_times() -> None:
    async def work() -> None:
        with room_of() as room:
            job = Job(Script(300, 1), 1.0)
            room.submit(job)
            assert await read(room, job) == bytes(number % 256 for number in range(300))
            assert job.state is State.ENDED
            assert job.seconds_audio == 300
            times = job.times
            assert times.submitted <= times.first_block <= times.ended
            assert times.computing <= times.ended - times.submitted

    limited(work)


def test_an_error_ends_its_own_request_with_its_message() -> None:
    def fails(job: Job) -> Iterator[Block]:
        yield Block(b"first", 1.0)
        raise ValueError("of this request")

    async def work() -> None:
        with room_of() as room:
            bad, good = Job(fails, 1.0), Job(Script(2), 1.0)
            room.submit(bad)
            room.submit(good)
            blocks = room.blocks(bad)
            assert (await anext(blocks)).content == b"first"
            with pytest.raises(ValueError, match="of this request"):
                await anext(blocks)
            assert len(await read(room, good)) == 20

    limited(work)


def test_what_can_not_even_be_opened_is_an_error_of_its_request() -> None:
    def fails(job: Job) -> Iterator[Block]:
        raise SystemExit("even so")

    async def work() -> None:
        with room_of() as room:
            bad, good = Job(fails, 1.0), Job(Script(2), 1.0)
            room.submit(bad)
            room.submit(good)
            with pytest.raises(SystemExit):
                await read(room, bad)
            assert len(await read(room, good)) == 20

    limited(work)


def test_the_line_is_bounded_and_says_when_to_come_again() -> None:
    async def work() -> None:
        with room_of(workers=1, queue=1) as room:
            script = Script(1).held()
            jobs = [Job(script, 8.0), Job(Script(1), 4.0)]
            for job in jobs:
                room.submit(job)
            with pytest.raises(LineFull, match="2 requests are being served or wait") as refusal:
                room.submit(Job(Script(1), 1.0))
            assert 0 < refusal.value.retry_after <= 6
            script.may_go.set()
            for job in jobs:
                await read(room, job)
            room.submit(last := Job(Script(1), 1.0))
            assert await read(room, last)

    limited(work)


def test_cancelling_a_queued_job_frees_its_place_and_leaves_the_running_one() -> None:
    async def work() -> None:
        with room_of(queue=1) as room:
            running, queued = Script(3).held(), Script(3)
            first, second = Job(running, 1.0), Job(queued, 1.0)
            room.submit(first)
            await held(running)
            room.submit(second)
            room.cancel(second, "the client left")
            with pytest.raises(Cancelled, match="the client left"):
                await read(room, second)
            room.submit(third := Job(Script(1), 1.0))
            running.may_go.set()
            assert len(await read(room, first)) == 30
            assert await read(room, third)
            assert queued.opened == 0

    limited(work)


def test_a_running_job_stops_at_its_next_step_and_its_stream_is_closed() -> None:
    async def work() -> None:
        with room_of() as room:
            script = Script(1000).held()
            room.submit(job := Job(script, 1.0))
            await held(script)
            room.cancel(job, "the client left")
            script.may_go.set()
            with pytest.raises(Cancelled):
                await read(room, job)
            assert script.closed.is_set()
            assert script.made == 0

    limited(work)


def test_a_step_under_way_is_halted_when_it_can_be() -> None:
    halted = threading.Event()

    def endless(job: Job) -> Iterator[Block]:
        job.halt = halted.set
        yield Block(b"first", 1.0)
        assert halted.wait(TIMEOUT)  # a step that would take for ever
        return

    async def work() -> None:
        with room_of() as room:
            room.submit(job := Job(endless, 1.0))
            blocks = room.blocks(job)
            await anext(blocks)
            room.cancel(job, "the client left")
            with pytest.raises(Cancelled):
                await anext(blocks)

    limited(work)


def test_a_reader_who_leaves_stops_the_work() -> None:
    async def work() -> None:
        with room_of() as room:
            script = Script(10**9, 1)
            room.submit(job := Job(script, 1.0))
            async with aclosing(room.blocks(job)) as blocks:
                await anext(blocks)
            assert await asyncio.to_thread(script.closed.wait, TIMEOUT)
            room.submit(other := Job(Script(1), 1.0))
            assert await read(room, other)
            assert job.why_cancelled == "nobody reads it"

    limited(work)


def test_a_slow_reader_holds_no_worker_and_bounds_what_is_made() -> None:
    async def work() -> None:
        with room_of(workers=1) as room:
            slow = Script(100, size=1000)
            job = Job(slow, 1.0, most_waiting_bytes=5000)
            room.submit(job)
            room.submit(other := Job(Script(1), 1.0))
            assert await read(room, other)
            assert slow.made <= 6
            assert len(await read(room, job)) == 100_000

    limited(work)


def test_a_job_that_rests_can_be_cancelled() -> None:
    async def work() -> None:
        with room_of() as room:
            script = Script(100, size=1000)
            room.submit(job := Job(script, 1.0, most_waiting_bytes=1000))
            room.submit(other := Job(Script(1), 1.0))
            await read(room, other)
            assert room.counts()[State.PARKED] == 1
            room.cancel(job, "it stalls")
            assert await asyncio.to_thread(script.closed.wait, TIMEOUT)
            with pytest.raises(Cancelled):
                await read(room, job)

    limited(work)


def test_who_has_heard_nothing_goes_before_who_has_sound_left() -> None:
    order: list[str] = []

    def noted(name: str, script: Script) -> Callable[[Job], Iterator[Block]]:
        def blocks(job: Job) -> Iterator[Block]:
            for block in script(job):
                order.append(name)
                yield block

        return blocks

    async def work() -> None:
        with room_of(workers=1) as room:
            gate = Script(1).held()
            room.submit(before := Job(gate, 1.0))
            await held(gate)
            jobs = [Job(noted(name, Script(3, seconds=60)), 1.0) for name in "ab"]
            for job in jobs:
                room.submit(job)
            gate.may_go.set()
            for job in (before, *jobs):
                await read(room, job)
        assert order[:2] == ["a", "b"]
        assert sorted(order) == list("aaabbb")

    limited(work)


def test_a_closed_room_takes_nothing_and_ends_what_it_has() -> None:
    async def work() -> None:
        with room_of() as room:
            script = Script(2).held()
            room.submit(job := Job(script, 1.0))
            await held(script)
            room.close()
            with pytest.raises(Unavailable, match="the server stops"):
                room.submit(Job(Script(1), 1.0))
            script.may_go.set()
            assert len(await read(room, job)) == 20

    limited(work)


def test_stopping_ends_running_queued_and_resting_jobs() -> None:
    async def work() -> None:
        room = EngineRoom(1, 8)
        endless = [Job(Script(10**9), 1.0, most_waiting_bytes=size) for size in (50, 10**9, 10**9)]
        for job in endless:
            room.submit(job)
        assert await asyncio.to_thread(room.stop, TIMEOUT)
        for job in endless:
            with pytest.raises(Cancelled, match="the server stops"):
                await read(room, job)

    limited(work)


def test_every_end_is_told_once() -> None:
    ended: list[Job] = []

    async def work() -> None:
        with room_of(on_end=ended.append) as room:
            jobs = [Job(Script(count), 1.0) for count in range(5)]
            for job in jobs:
                room.submit(job)
            room.cancel(jobs[3], "x")
            for job in jobs:
                if job is jobs[3]:
                    with pytest.raises(Cancelled):
                        await read(room, job)
                else:
                    await read(room, job)
            assert len(ended) == 5
            assert set(ended) == set(jobs)

    limited(work)


def test_the_backlog_is_what_the_workers_share() -> None:
    async def work() -> None:
        with room_of(workers=2) as room:
            script = Script(1).held()
            jobs = [Job(script, 10.0) for _ in range(4)]
            for job in jobs:
                room.submit(job)
            assert room.backlog() == pytest.approx(20.0, abs=1.0)
            script.may_go.set()
            for job in jobs:
                await read(room, job)
            assert room.backlog() == 0

    limited(work)


def test_before_a_new_job_comes_what_others_need_until_then() -> None:
    async def work() -> None:
        with room_of(workers=1) as room:
            assert room.seconds_before(1.0) == 0
            gate = Script(3, seconds=5.0).held()
            begun = Job(gate, 50.0, first_seconds=4.0, rtf=0.5)
            room.submit(begun)
            await held(gate)
            # its first sound, then at half a second of computing for each of sound
            assert room.seconds_before(2.0) == pytest.approx(4.0, abs=0.5)
            assert room.seconds_before(10.0) == pytest.approx(7.0, abs=0.5)
            room.submit(whole := Job(Script(1), 6.0))
            assert room.seconds_before(2.0) == pytest.approx(10.0, abs=0.5)
            gate.may_go.set()
            await read(room, begun)
            await read(room, whole)
            assert room.seconds_before(10.0) == 0

    limited(work)


def test_a_job_that_is_ahead_of_its_listener_needs_its_step_only() -> None:
    async def work() -> None:
        with room_of(workers=1) as room:
            holds = threading.Event()

            def ahead(job: Job) -> Iterator[Block]:
                yield Block(b"first", 8.0)
                assert holds.wait(TIMEOUT)
                yield Block(b"second", 8.0)

            room.submit(job := Job(ahead, 100.0, first_seconds=1.0, rtf=0.5))
            blocks = room.blocks(job)
            await anext(blocks)
            assert room.seconds_before(2.0) == pytest.approx(4.0, abs=0.5)  # the step under way
            assert room.seconds_before(20.0) == pytest.approx(8.0, abs=0.5)  # two blocks
            assert room.backlog() > 90
            holds.set()
            await anext(blocks)
            await blocks.aclose()

    limited(work)


def test_a_free_worker_begins_at_once_whatever_the_others_do() -> None:
    async def work() -> None:
        with room_of(workers=2) as room:
            scripts = [Script(1).held() for _ in range(3)]
            jobs = [Job(script, 10.0 + number) for number, script in enumerate(scripts)]
            room.submit(jobs[0])
            await held(scripts[0])
            assert room.seconds_before(1.0) == 0
            room.submit(jobs[1])
            await held(scripts[1])
            assert room.seconds_before(1.0) == pytest.approx(10.0, abs=0.5)
            room.submit(jobs[2])
            assert room.seconds_before(1.0) == pytest.approx(11.0, abs=0.5)
            for script in scripts:
                script.may_go.set()
            for job in jobs:
                await read(room, job)

    limited(work)


@pytest.mark.parametrize("seed", range(3))
def test_nothing_hangs_whatever_clients_do(seed: int) -> None:
    """Readers that read all, leave, never read and are cancelled, on more jobs than fit."""
    draw = random.Random(seed)

    async def client(room: EngineRoom) -> None:
        job = Job(Script(draw.randrange(1, 20), size=100), 0.1, most_waiting_bytes=500)
        while True:
            try:
                room.submit(job)
                break
            except LineFull:
                await asyncio.sleep(0.001)
        kind = draw.randrange(4)
        if kind == 0:
            await read(room, job)
        elif kind == 1:
            async with aclosing(room.blocks(job)) as blocks:
                async for _ in blocks:
                    if draw.random() < 0.3:
                        break
        elif kind == 2:
            room.cancel(job, "left at once")
        else:
            await asyncio.sleep(0.002)
            room.cancel(job, "left later")

    async def work() -> None:
        with room_of(workers=3, queue=5) as room:
            await asyncio.gather(*(client(room) for _ in range(150)))
            room.submit(last := Job(Script(1), 1.0))
            assert await read(room, last)
            while sum(room.counts().values()):  # the last cancelled ones reach their next step
                await asyncio.sleep(0.001)

    limited(work)


class Seated(Script):
    """Notes the seats on which its blocks are made."""

    def __init__(self, count: int, now: list[int], seen: list[int | None], **options: Any) -> None:
        super().__init__(count, **options)
        self.now, self.seen = now, seen

    def _blocks(self, job: Job) -> Iterator[Block]:
        seat = job.seat
        blocks = super()._blocks(job)
        while True:
            assert seat is not None
            assert seat not in self.now, "two steps at a time on one seat"
            self.now.append(seat)
            block = next(blocks, None)
            self.now.remove(seat)
            self.seen.append(job.seat)
            if block is None:
                return
            yield block


def test_a_job_stays_on_its_seat_and_each_seat_makes_one_step_at_a_time() -> None:
    async def work() -> None:
        with room_of(3, 40, has_seats=True) as room:
            now: list[int] = []
            seen: list[list[int | None]] = [[] for _ in range(20)]
            jobs = [Job(Seated(10, now, seats), 1.0, most_waiting_bytes=30) for seats in seen]
            for job in jobs:
                room.submit(job)
            contents = await asyncio.gather(*(read(room, job) for job in jobs))
            assert [len(content) for content in contents] == [100] * 20
            assert all(len(set(seats)) == 1 for seats in seen)
            assert {seats[0] for seats in seen} == {0, 1, 2}

    limited(work)


def test_a_job_whose_seat_is_taken_lets_a_less_urgent_one_pass() -> None:
    async def work() -> None:
        with room_of(2, 8, has_seats=True) as room:
            rests, other = Script(3, seconds=0.0), Script(2)
            first = Job(rests, 1.0, most_waiting_bytes=10)  # parks after each block
            second = Job(other, 1.0, most_waiting_bytes=10)
            room.submit(first)
            blocks = room.blocks(first)
            await anext(blocks)
            room.submit(second)
            assert len(await read(room, second)) == 20
            assert {first.seat, second.seat} == {0, 1}
            holds = Script(1).held()
            third, fourth = Job(holds, 1.0), Job(Script(1), 1.0)
            third.seat = first.seat
            room.submit(third)
            await held(holds)
            going_on = asyncio.ensure_future(anext(blocks))
            room.submit(fourth)
            assert len(await read(room, fourth)) == 10
            assert not going_on.done() or rests.made >= 2
            holds.may_go.set()
            await going_on
            assert len(await read(room, third)) == 10
            await blocks.aclose()

    limited(work)


def test_new_jobs_take_the_seats_with_the_fewest_jobs_in_turn() -> None:
    async def work() -> None:
        with room_of(2, 8, has_seats=True) as room:
            seats = []
            for _ in range(4):
                job = Job(Script(1), 1.0)
                room.submit(job)
                await read(room, job)
                seats.append(job.seat)
            assert seats == [0, 1, 0, 1]

    limited(work)
