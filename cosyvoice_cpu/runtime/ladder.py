"""The graphs of a component and the ladder of their sizes.

Static graphs exist for a few lengths only, a request is padded to the next one. Steps are 50 mel
frames (1 s) at the bottom and 8 % further up: with prompts of 3 to 10 s and sentences of 2 to 12 s
that is 5.2 % more arithmetic than no padding at all, with 33 graphs up to 60 s. Finer steps save
0.3 % with 59 graphs; 25 % steps cost 15 % (`docs/decisions.md`).
"""

from __future__ import annotations

import contextlib
import threading
from bisect import bisect_left
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.generations.components import WEIGHTS_FILE
from cosyvoice_cpu.runtime.consistency import manifest_sizes, require_rows, require_shapes
from cosyvoice_cpu.runtime.graph import (
    Engine,
    EngineOptions,
    Graph,
    GraphSource,
    engine_named,
)

GRID_FRAMES = 50  # one second of mel, one block of the streaming mask
STEP_SHARE = 0.08
_OPEN_SIZES = 3  # graphs of one ladder kept open: the size of the last requests and its neighbours

_Key = tuple[str, int | None]  # variant and size

Engines = Mapping[ComponentName, Engine | str]
"""Engines that take the place of those in the manifest, by themselves or by name."""


def ladder_sizes(top: int, first: int = 2 * GRID_FRAMES) -> list[int]:
    """Ascending sizes in mel frames from `first` up to `top`, rounded up to the grid."""
    top = max(-(-top // GRID_FRAMES) * GRID_FRAMES, first)
    sizes = [first]
    while sizes[-1] < top:
        step = max(round(sizes[-1] * STEP_SHARE / GRID_FRAMES), 1) * GRID_FRAMES
        sizes.append(min(sizes[-1] + step, top))
    return sizes


def size_for(frames: int, sizes: Sequence[int]) -> int | None:
    """The smallest of the ascending `sizes` that holds `frames`, None if none does."""
    index = bisect_left(sizes, frames)
    return sizes[index] if index < len(sizes) else None


class GraphLadder:
    """Graphs by variant and size, opened when first needed; the last few stay open.

    May be used from several threads: each size is open once, and none is closed that is in use. A
    size whose graph keeps the weights for itself (`Graph.private_weights`) is open alone unless
    threads use several at the same time. Of those there are never more than `_OPEN_SIZES`: who
    wants a further one waits, first come, first served.
    """

    def __init__(self, open_size: Callable[[str, int | None], Graph]) -> None:
        self._open_size = open_size
        self._graphs: OrderedDict[_Key, Graph] = OrderedDict()  # used last comes last
        self._users: Counter[_Key] = Counter()
        self._queue: deque[object] = deque()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def use(self, variant: str, size: int | None) -> Iterator[Graph]:
        """The graph of `variant` for `size` (None: the graph for any length), for the block.

        The block must not use another size of this ladder, or threads would wait for each other.
        """
        key = (variant, size)
        with self._changed:
            graph = self._take(key)
            self._users[key] += 1
        try:
            yield graph
        finally:
            with self._changed:
                self._users[key] -= 1
                self._close_idle(1 if self._private else _OPEN_SIZES)
                self._changed.notify_all()

    @property
    def _private(self) -> bool:
        return any(graph.private_weights for graph in self._graphs.values())

    def _take(self, key: _Key) -> Graph:
        """The graph, when it is this thread's turn and there is room for it."""
        ticket = object()
        self._queue.append(ticket)
        try:
            while self._queue[0] is not ticket or not self._has_room(key):
                self._changed.wait()
            if key not in self._graphs:
                self._close_idle(0 if self._private else _OPEN_SIZES - 1)
                self._graphs[key] = self._open_size(*key)
            self._graphs.move_to_end(key)
            return self._graphs[key]
        finally:
            self._queue.remove(ticket)
            self._changed.notify_all()

    def _has_room(self, key: _Key) -> bool:
        in_use = sum(self._users[other] > 0 for other in self._graphs)
        return key in self._graphs or not self._private or in_use < _OPEN_SIZES

    def _close_idle(self, most: int) -> None:
        """Close those not in use, the longest unused first, until `most` graphs are open."""
        for key in list(self._graphs):
            if len(self._graphs) <= most:
                return
            if not self._users[key]:
                self._graphs.pop(key).close()
                del self._users[key]


class ComponentGraphs:
    """The graphs of one component of a bundle, on the engine that was chosen for it."""

    def __init__(
        self,
        bundle: Bundle,
        name: ComponentName,
        options: EngineOptions,
        engines: Engines | None = None,
    ) -> None:
        """`engines` may name another engine for it than the manifest does.

        Raises: BundleError if the bundle lacks the component or names an unknown engine.
        """
        component = bundle.component(name)
        self._bundle, self._name = bundle, name
        engine = (engines or {}).get(name, component.engine)
        self._engine = engine_named(engine) if isinstance(engine, str) else engine
        self.spec = GraphSource(bundle, name, "").component_spec
        self._made_for = component.shapes.sizes
        self.sizes = [] if self._engine.any_length else self._made_for
        # No method of this object: the circle would keep closed graphs open until the collector
        # comes by.
        self._open = partial(_open_graph, bundle, name, self._engine, options)
        self._ladder = GraphLadder(self._open)

    def open(self, variant: str, size: int | None = None) -> Graph:
        """A graph of its own for the caller.

        Raises: BundleError if the engine refuses it, it does not fit the manifest, or the bundle
        changed since it was loaded.
        """
        return self._open(variant, size)

    def require_rows(self, table: str, rows: int, what: str) -> None:
        """Raises: BundleError if a table of the component's weights has fewer rows."""
        require_rows(self._bundle.file(self._name, WEIGHTS_FILE), table, rows, what)

    @property
    def max_frames(self) -> int | None:
        """The ladder's top, None if any length works."""
        return self.sizes[-1] if self.sizes else None

    def require_frames(self, frames: int) -> None:
        """Raises: SynthesisError if the component was not made for so many; whatever the engine
        and the graph, its table of positions ends there.
        """
        if self._made_for and frames > self._made_for[-1]:
            raise SynthesisError(
                f"{frames} mel frames exceed the bundle's longest graph of {self._made_for[-1]}",
                "shorten text or prompt, or export with a larger --max-seconds",
            )

    @contextlib.contextmanager
    def for_frames(self, variant: str, frames: int) -> Iterator[tuple[Graph, int]]:
        """A graph that holds `frames`, and how many it takes, padding included; for the block.

        Raises: SynthesisError if the ladder ends below.
        """
        if self.sizes:
            self.require_frames(frames)
        size = size_for(frames, self.sizes) if self.sizes else None
        with self._ladder.use(variant, size) as graph:
            yield graph, frames if size is None else size


def _open_graph(
    bundle: Bundle,
    name: ComponentName,
    engine: Engine,
    options: EngineOptions,
    variant: str,
    size: int | None,
) -> Graph:
    source = GraphSource(bundle, name, variant, size)
    file = source.spec.file(size)  # which an engine that makes its own graphs need not find
    with bundle.unchanged(name, file):
        graph = engine.open(source, options)
    sizes = manifest_sizes(bundle.manifest)
    if source.spec.ladder and size:
        sizes[source.spec.ladder.symbol] = size
    require_shapes(bundle.path / name / file, graph, source.spec, sizes)
    return graph
