"""Keys and values of a stream's recent chunks, for each evaluation of the solver.

A window is a ring: its oldest chunk makes room for the next. The order of what is attended to does
not matter, positions are in the keys already. Its memory, a hundred megabytes and more at full
size, is handed on from one stream to the next: fresh memory costs a tenth of the first chunk's
time.
"""

from __future__ import annotations

import math
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np

from cosyvoice_cpu.runtime.prompt_past import Halves

_KEPT = 1  # windows of ended streams; more were in use at the same time


class WindowMemory:
    """The memory of windows: flat arrays, one for each evaluation and one more to move in.

    May be used from several threads.
    """

    def __init__(self) -> None:
        self._free: list[list[Halves]] = []
        self._lock = threading.Lock()

    def take(self, arrays: int, size: int) -> list[Halves]:
        """`arrays` arrays of at least `size` numbers, of any content."""
        with self._lock:
            for index, found in enumerate(self._free):
                if len(found) == arrays and found[0].size >= size:
                    return self._free.pop(index)
        return [np.empty(size, np.float16) for _ in range(arrays)]

    def give_back(self, arrays: list[Halves]) -> None:
        """What `take` gave; nobody uses it any more."""
        with self._lock:
            self._free.append(arrays)
            del self._free[:-_KEPT]


class RecentPast:
    """The recent chunks of one stream."""

    def __init__(
        self,
        shape: Callable[[int, int], tuple[int, ...]],
        *,
        rows: Sequence[int],
        chunk: int,
        most_chunks: int | None,
        pinned_chunks: int,
        memory: WindowMemory,
    ) -> None:
        """`shape` of the past of so many rows and frames; `rows` of each evaluation. The first
        `pinned_chunks` stay as long as the stream does; with `most_chunks`, those included, None
        for all, the others follow each other.
        """
        self._shape, self._rows, self._chunk = shape, rows, chunk
        self._most, self._pinned = most_chunks, pinned_chunks
        self._kept: list[Halves] = [np.zeros(shape(count, 0), np.float16) for count in rows]
        self._arrays: list[Halves] | None = None
        self._end: Callable[[], object] = lambda: None
        if most_chunks is not None:
            most = math.prod(shape(max(rows), most_chunks * chunk))
            self._arrays = memory.take(len(rows) + 1, most)
            self._end = weakref.finalize(self, memory.give_back, self._arrays)

    def of(self, step: int) -> Halves:
        """[layers, key and value, rows, heads, frames, dim_head], contiguous."""
        return self._kept[step]

    def all(self) -> Sequence[Halves]:
        """The same for all evaluations."""
        return self._kept

    def add(self, step: int, number: int, fresh: Sequence[Halves]) -> None:
        """Keep the keys and values of chunk `number`, from 0: for each layer and part in turn
        [rows, heads, chunk, dim_head].
        """
        place = number
        if self._most is not None and number >= self._most:
            place = self._pinned + (number - self._pinned) % (self._most - self._pinned)
        else:
            self._grow(step, number)
        kept, first = self._kept[step], place * self._chunk
        for index, part in enumerate(fresh):
            layer, which = divmod(index, kept.shape[1])
            kept[layer, which, ..., first : first + self._chunk, :] = part

    def close(self) -> None:
        """Hand the memory on; nothing is kept any more."""
        self._kept = []
        self._end()

    def _grow(self, step: int, chunks: int) -> None:
        """Make room for one chunk behind `chunks` of them."""
        shape = self._shape(self._rows[step], (chunks + 1) * self._chunk)
        if self._arrays is None:
            longer = np.empty(shape, np.float16)
        else:  # into the array that is free, whose place the step's own takes
            longer = self._arrays[-1][: math.prod(shape)].reshape(shape)
        longer[..., : chunks * self._chunk, :] = self._kept[step]
        self._kept[step] = longer
        if self._arrays is not None:
            self._arrays[step], self._arrays[-1] = self._arrays[-1], self._arrays[step]
