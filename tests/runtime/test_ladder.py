"""The ladder of sizes and the graphs that are open on it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.runtime.graph import Graph
from cosyvoice_cpu.runtime.ladder import GRID_FRAMES, GraphLadder, ladder_sizes, size_for


@given(top=st.integers(1, 20_000))
def test_a_ladder_ascends_on_the_grid_and_holds_its_top(top: int) -> None:
    sizes = ladder_sizes(top)
    assert sizes == sorted(set(sizes))
    assert all(size % GRID_FRAMES == 0 for size in sizes)
    assert top <= sizes[-1] < max(top, 2 * GRID_FRAMES) + GRID_FRAMES


@given(top=st.integers(100, 20_000), frames=st.integers(1, 25_000))
def test_the_smallest_size_that_holds_the_frames_is_chosen(top: int, frames: int) -> None:
    sizes = ladder_sizes(top)
    size = size_for(frames, sizes)
    if size is None:
        assert frames > sizes[-1]
    else:
        assert size >= frames
        assert all(other < frames for other in sizes if other < size)


def test_padding_beyond_ten_seconds_is_an_eighth_at_most_and_a_twentieth_on_average() -> None:
    sizes = ladder_sizes(3000)
    padding = [(size_for(frames, sizes) or 0) / frames - 1 for frames in range(500, 3001)]
    assert min(padding) == 0
    assert max(padding) < 0.125
    assert sum(padding) / len(padding) < 0.05


class SizedGraph(Graph):
    """A graph that knows its size and says that it is closed."""

    inputs = outputs = ()

    def __init__(self, size: int, *, private_weights: bool, closed: Callable[[int], object]):
        self.size, self.private_weights, self._closed = size, private_weights, closed

    def run(self, feed):
        return {}

    def close(self) -> None:
        self._closed(self.size)


class Ladder(GraphLadder):
    """A ladder that notes what was opened, and what is open now and was at most."""

    def __init__(self, *, private_weights: bool) -> None:
        self.opened: list[int] = []
        self.open_now: set[int] = set()
        self.most = 0

        def open_size(variant: str, size: int | None) -> Graph:
            assert size is not None
            assert size not in self.open_now
            self.opened.append(size)
            self.open_now.add(size)
            self.most = max(self.most, len(self.open_now))
            closed = self.open_now.discard
            return SizedGraph(size, private_weights=private_weights, closed=closed)

        super().__init__(open_size)


def test_a_ladder_opens_a_size_once_and_keeps_the_last_three() -> None:
    ladder = Ladder(private_weights=False)
    for size in (100, 150, 100, 200, 100, 250, 100, 150):
        with ladder.use("full", size):
            pass
    assert ladder.opened == [100, 150, 200, 250, 150]
    assert ladder.open_now == {250, 100, 150}


def test_a_ladder_whose_sizes_each_hold_the_weights_keeps_one_size() -> None:
    ladder = Ladder(private_weights=True)
    for size in (100, 150, 100):
        with ladder.use("full", size):
            assert ladder.open_now == {size}
    assert ladder.most == 1  # the weights were never there twice


def test_a_size_that_is_in_use_is_neither_closed_nor_opened_a_second_time() -> None:
    ladder = Ladder(private_weights=True)
    with ladder.use("full", 100) as in_use:  # as another thread does while it computes
        with ladder.use("full", 150):
            assert ladder.open_now == {100, 150}
            with ladder.use("full", 100) as again:
                assert again is in_use
        assert ladder.open_now == {100}
    assert ladder.open_now == {100}
    with ladder.use("full", 150):
        assert ladder.open_now == {150}
    assert ladder.opened == [100, 150, 150]


def test_sizes_that_share_the_weights_never_wait() -> None:
    ladder = Ladder(private_weights=False)
    with contextlib.ExitStack() as stack:
        for size in range(100, 600, 50):
            stack.enter_context(ladder.use("full", size))
        assert len(ladder.open_now) == 10
    assert len(ladder.open_now) == 3


def test_threads_that_want_many_sizes_hold_the_weights_three_times_at_most() -> None:
    ladder = Ladder(private_weights=True)
    computing = threading.Barrier(3)

    def ask(number: int) -> int | None:
        with ladder.use("full", 100 + number % 7) as graph:
            if number < 3:
                computing.wait(60)  # three at a time there must be
            assert isinstance(graph, SizedGraph)
            return graph.size

    with ThreadPoolExecutor(8) as pool:
        sizes = list(pool.map(ask, range(2000)))
    assert sizes == [100 + number % 7 for number in range(2000)]
    assert ladder.most == 3
    assert len(ladder.open_now) == 1


def test_who_waits_for_room_is_not_passed_by_those_that_come_later() -> None:
    ladder = Ladder(private_weights=True)
    order: list[str] = []

    def ask(name: str, size: int) -> threading.Thread:
        def run() -> None:
            with ladder.use("full", size):
                order.append(name)

        thread = threading.Thread(target=run)
        waiting = len(ladder._queue)
        thread.start()
        while len(ladder._queue) == waiting and thread.is_alive():
            pass
        return thread

    with contextlib.ExitStack() as stack:
        for size in (100, 150, 200):
            stack.enter_context(ladder.use("full", size))
        threads = [ask("needs room", 250), ask("comes later, for an open size", 100)]
        assert order == []
    for thread in threads:
        thread.join(60)
    assert order == ["needs room", "comes later, for an open size"]


def test_a_size_that_fails_to_open_stops_nobody_else() -> None:
    def open_size(variant: str, size: int | None) -> Graph:
        if size == 150:
            raise BundleError("it is damaged", "copy it again")
        return SizedGraph(size or 0, private_weights=True, closed=lambda size: None)

    ladder = GraphLadder(open_size)
    for _ in range(5):
        with pytest.raises(BundleError), ladder.use("full", 150):
            pass
        with ladder.use("full", 100) as graph:
            assert graph.private_weights
