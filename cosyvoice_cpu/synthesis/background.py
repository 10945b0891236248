"""An iterator that runs in a thread of its own, a bounded number of items ahead of who reads it.

Stages of a stream are generators, one reading the other. Each of them can be moved to a thread
without knowing it:

    tokens = Background(draw(text), ahead=8, name="speech-lm")
    mels = Background(solve(tokens), ahead=2, name="flow")

Who reads slowly makes the thread wait (back-pressure); what the thread raises is raised where it is
read; `close` ends it, wherever it is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Generic, TypeVar

Item = TypeVar("Item")

_GUARD_SECONDS = 60.0  # between looks whether the thread still lives; it always says how it ends


class _End:
    """What stands behind the last item: the error that ended the iterator, if one did."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class Background(Generic[Item]):
    """Iterates over `source` in a thread, which starts with the first item that is asked for."""

    def __init__(self, source: Iterator[Item], *, ahead: int, name: str) -> None:
        """`ahead` items may wait to be read; `name` is the thread's."""
        self._source = source
        self._queue: queue.Queue[Item | _End] = queue.Queue(maxsize=ahead)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __iter__(self) -> Background[Item]:
        return self

    def __next__(self) -> Item:
        if self._closed.is_set():
            raise StopIteration
        if self._thread.ident is None:
            self._thread.start()
        item = self._get()
        if not isinstance(item, _End):
            return item
        self._closed.set()
        self._thread.join()
        if item.error is not None:
            raise item.error
        raise StopIteration

    def close(self) -> None:
        """End the thread after what it computes now, and wait for that; any number of times.

        From any thread but its own; who reads meanwhile finds the end. What the source should stop
        in the middle of, its owner tells it first.
        """
        self._closed.set()
        if self._thread.ident is None:
            _close(self._source)
            return
        while self._thread.is_alive():
            self._drain()  # a put that waits goes on, and finds that nobody reads any more
            self._thread.join(_GUARD_SECONDS)
        self._drain()
        self._queue.put(_End())  # for a reader in another thread

    def __enter__(self) -> Background[Item]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _get(self) -> Item | _End:
        while True:
            try:
                return self._queue.get(timeout=_GUARD_SECONDS)
            except queue.Empty:
                if not self._thread.is_alive():
                    return self._left_behind()

    def _left_behind(self) -> Item | _End:
        """What the thread said at its end, if that was while the reader's patience ended."""
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            if self._closed.is_set():  # from another thread, which has not told the reader yet
                return _End()
            raise RuntimeError(f"the thread {self._thread.name} is gone") from None

    def _drain(self) -> None:
        while True:
            try:
                self._queue.get_nowait()
            except queue.Empty:
                return

    def _work(self) -> None:
        end = _End()
        try:
            for item in self._source:
                if not self._closed.is_set():
                    self._queue.put(item)
                if self._closed.is_set():
                    return
        except BaseException as error:  # whoever reads gets it, whatever it is
            end = _End(error)
        finally:
            _close(self._source)
            if not self._closed.is_set():
                self._queue.put(end)


def _close(source: Iterator[object]) -> None:
    close = getattr(source, "close", None)
    if close is not None:
        close()
