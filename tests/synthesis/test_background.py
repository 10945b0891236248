"""A generator in a thread: in order, bounded, ended from outside, with its own errors."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosyvoice_cpu.synthesis.background import Background


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


@settings(max_examples=20)
@given(items=st.lists(st.integers(), max_size=30), ahead=st.integers(1, 5))
def test_items_come_in_order_and_the_thread_is_gone_after_the_last(
    items: list[int], ahead: int
) -> None:
    assert list(Background(iter(items), ahead=ahead, name="in-order")) == items
    assert not threads_named("in-order")


def test_no_more_than_the_bound_is_made_before_it_is_read() -> None:
    made: list[int] = []
    full = threading.Semaphore(0)

    def source() -> Iterator[int]:
        for number in range(100):
            made.append(number)
            full.release()
            yield number

    with Background(source(), ahead=3, name="bounded") as items:
        assert next(items) == 0
        for _ in range(5):  # the one read, three that wait, one that waits for room
            assert full.acquire(timeout=10)
        assert not full.acquire(timeout=0.2)
        assert made == [0, 1, 2, 3, 4]


def test_an_error_is_raised_where_the_items_are_read_and_is_the_same() -> None:
    error = KeyError("mine")

    def source() -> Iterator[int]:
        yield 1
        raise error

    items = Background(source(), ahead=2, name="failing")
    assert next(items) == 1
    with pytest.raises(KeyError) as caught:
        next(items)
    assert caught.value is error
    assert next(items, None) is None
    assert not threads_named("failing")


@pytest.mark.parametrize("read", [0, 1, 4])
def test_closing_ends_thread_and_source_wherever_they_are(read: int) -> None:
    closed = []

    def source() -> Iterator[int]:
        try:
            yield from range(10**9)
        finally:
            closed.append(True)

    items = Background(source(), ahead=2, name="closing")
    for _ in range(read):
        next(items)
    items.close()
    items.close()
    assert closed == ([True] if read else [])  # a generator that never began has no end
    assert not threads_named("closing")
    assert next(items, None) is None


def test_who_reads_in_another_thread_finds_the_end() -> None:
    begun, go = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        begun.set()
        go.wait(10)
        yield 1

    items = Background(source(), ahead=1, name="read-elsewhere")
    found: list[int | None] = []
    reader = threading.Thread(target=lambda: found.append(next(items, None)))
    reader.start()
    assert begun.wait(10)
    closer = threading.Thread(target=items.close)
    closer.start()
    time.sleep(0.05)  # so that the close is under way
    go.set()
    for thread in (reader, closer):
        thread.join(10)
        assert not thread.is_alive()
    assert found in ([None], [1])


def test_a_chain_of_three_ends_from_its_far_end() -> None:
    def stage(source: Iterator[int]) -> Iterator[int]:
        try:
            for item in source:
                yield item + 1
        finally:
            source.close()  # type: ignore[attr-defined]

    first = Background(iter(range(10**9)), ahead=2, name="chain")
    second = Background(stage(first), ahead=2, name="chain")
    third = Background(stage(second), ahead=2, name="chain")
    assert [next(third) for _ in range(5)] == [2, 3, 4, 5, 6]
    third.close()
    assert not threads_named("chain")


def impatient(items: Background[int]) -> None:
    """Let the reader's first wait end, without an item, just when the thread has ended."""
    get, waits = items._queue.get, []

    def late(*arguments: Any, **options: Any) -> Any:
        if "timeout" in options and not waits:
            waits.append(True)
            items._thread.join()
            raise queue.Empty
        return get(*arguments, **options)

    items._queue.get = late  # type: ignore[method-assign]


def test_an_item_that_comes_as_the_readers_patience_ends_is_read() -> None:
    items = Background(iter([1]), ahead=2, name="late")
    impatient(items)
    assert list(items) == [1]


def test_who_reads_a_stream_that_is_closed_as_patience_ends_finds_the_end() -> None:
    entered, go = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        entered.set()
        go.wait(10)
        yield 1

    items = Background(source(), ahead=2, name="closed")
    impatient(items)
    found: list[list[int]] = []
    reader = threading.Thread(target=lambda: found.append(list(items)))
    reader.start()
    assert entered.wait(10)
    items._closed.set()  # as `close` begins
    go.set()
    reader.join(10)
    assert found == [[]]
