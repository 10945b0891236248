"""The ladder of sizes and the graphs that are open on it."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

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
    """A graph that knows its size and says when it is closed."""

    inputs = outputs = ()

    def __init__(
        self, size: int, *, private_weights: bool, closed: Callable[[int], object]
    ) -> None:
        self.size, self.private_weights, self._closed = size, private_weights, closed

    def run(self, feed):
        return {}

    def __del__(self) -> None:
        self._closed(self.size)


def test_a_ladder_opens_a_size_once_and_keeps_the_last_three() -> None:
    opened: list[int | None] = []

    def open_size(variant: str, size: int | None) -> Graph:
        opened.append(size)
        return SizedGraph(size or 0, private_weights=False, closed=lambda size: None)

    ladder = GraphLadder(open_size)
    sizes = [100, 150, 100, 200, 100, 250, 100, 150]
    for size in sizes:
        ladder.get("full", size)
    assert opened == [100, 150, 200, 250, 150]


def test_a_ladder_whose_sizes_each_hold_the_weights_keeps_one_size() -> None:
    open_now: set[int] = set()

    def open_size(variant: str, size: int | None) -> Graph:
        assert not open_now  # the weights are never there twice
        open_now.add(size or 0)
        return SizedGraph(size or 0, private_weights=True, closed=open_now.discard)

    ladder = GraphLadder(open_size)
    for size in (100, 150, 100):
        assert ladder.get("full", size).size == size
        assert open_now == {size}


def test_a_size_that_is_in_use_is_not_opened_a_second_time() -> None:
    opened: list[int | None] = []

    def open_size(variant: str, size: int | None) -> Graph:
        opened.append(size)
        return SizedGraph(size or 0, private_weights=True, closed=lambda size: None)

    ladder = GraphLadder(open_size)
    in_use = ladder.get("full", 100)  # as another thread would hold it while it computes
    ladder.get("full", 150)
    assert ladder.get("full", 100) is in_use
    del in_use
    ladder.get("full", 150)
    ladder.get("full", 100)
    assert opened == [100, 150, 150, 100]
