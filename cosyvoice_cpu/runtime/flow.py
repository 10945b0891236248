"""What flow encoder and flow estimator are fed, whatever engine runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverPreset, Synthesis
from cosyvoice_cpu.decoding.ids import flow_token_ids
from cosyvoice_cpu.decoding.solver import Velocity, evaluation_times
from cosyvoice_cpu.errors import BundleError, UsageError
from cosyvoice_cpu.generations import GraphSpec
from cosyvoice_cpu.runtime.graph import Graph
from cosyvoice_cpu.runtime.ladder import ComponentGraphs

_ROWS_AT_ONCE = 2  # conditioned and not: what a solver asks for at most
_SAME_TIME = 1e-6  # float32 sums of other order end so near


class FlowEncoderStage:
    """Tokens to `mu`, speaker embedding to `speaker`."""

    def __init__(self, graphs: ComponentGraphs, synthesis: Synthesis) -> None:
        """Raises: BundleError if the engine refuses the graph, or its table is too small."""
        graphs.require_rows("token_embedding", synthesis.speech_vocabulary, "speech_vocabulary")
        self._spec = graphs.spec.graph("flow_encoder")
        self.past = self._spec.past  # tokens
        self._graph = graphs.open("flow_encoder")
        self._lookahead = synthesis.pre_lookahead_tokens
        self._vocabulary = synthesis.speech_vocabulary

    def encode(
        self, tokens: Sequence[int], embedding: Floats, *, finalize: bool
    ) -> tuple[Floats, Floats]:
        """`mu` [mel bins, frames] and `speaker` [mel bins].

        The last `pre_lookahead_tokens` are context unless `finalize`. Negative ids count as 0.
        Raises: SynthesisError for ids outside the vocabulary.
        """
        ids = np.array(flow_token_ids(tokens, self._vocabulary), np.int64)
        known = np.ones(len(ids), np.float32)
        if finalize:
            ids, known = np.pad(ids, (0, self._lookahead)), np.pad(known, (0, self._lookahead))
        feed = self._spec.feed(ids, known, np.reshape(embedding, (1, -1)))
        mu, speaker = self._spec.results(self._graph.run(feed))
        return mu, speaker[0]


@dataclass(frozen=True)
class _Sized:
    """A graph for `frames`, which takes `size`."""

    graph: Graph
    spec: GraphSpec
    frames: int
    size: int

    def rows(self, x: Floats, mu: Floats, speaker: Floats, cond: Floats, step: int) -> Floats:
        """x, mu, cond [B, mel bins, >= frames], speaker [B, mel bins] to [B, mel bins, frames]."""
        padding = ((0, 0), (0, 0), (0, self.size - self.frames))
        padded = (np.pad(array[:, :, : self.frames], padding) for array in (x, mu, cond))
        feed = self.spec.feed(*padded, speaker, step, [self.frames])
        (velocity,) = self.spec.results(self.graph.run(feed))
        return velocity[:, :, : self.frames]


class TimeTable:
    """The times that the estimator's graphs have a row of modulations for."""

    def __init__(self, graphs: ComponentGraphs, synthesis: Synthesis) -> None:
        """Raises: BundleError unless there is a row for each, and a time for each preset's."""
        graphs.require_rows("modulation", len(synthesis.solver_times), "solver_times")
        self._times = np.array(synthesis.solver_times, np.float32)
        for name, preset in synthesis.solver_presets.items():
            if missing := self.missing(preset):
                raise BundleError(
                    f"the flow of this bundle has no t = {missing[0]:g}, which its preset"
                    f" {name!r} needs",
                    "its manifest was changed; get the bundle again, or export it again",
                )

    def row(self, time: float) -> int:
        """The row of `time`. Raises: UsageError if there is none."""
        distance = np.abs(self._times - np.float32(time))
        row = int(distance.argmin())
        if distance[row] > _SAME_TIME:
            raise UsageError(
                f"t = {time:g} is none of the {len(self._times)} times of this bundle's solvers",
                "use one of its presets, or the torch reference for any t",
            )
        return row

    def require(self, preset: SolverPreset) -> None:
        """Raises: UsageError if the graphs can't be asked for what `preset` needs."""
        if missing := self.missing(preset):
            raise UsageError(
                f"this bundle's flow can't take {preset.steps} {preset.method} steps of this grid:"
                f" it knows no t = {missing[0]:g}",
                "use one of its presets, or the torch reference",
            )

    def missing(self, preset: SolverPreset) -> list[float]:
        """Times of `preset` without a row."""
        times = np.array(evaluation_times([preset]), np.float32)
        nearest = np.abs(times[:, None] - self._times).min(axis=1)
        return [float(time) for time in times[nearest > _SAME_TIME]]


class FlowEstimatorStage:
    """Velocity at one of the table's times, padded to the ladder."""

    def __init__(self, graphs: ComponentGraphs, synthesis: Synthesis) -> None:
        """Graphs open when first needed.

        Raises: BundleError if they were made for other times than the manifest says.
        """
        self.times = TimeTable(graphs, synthesis)
        self._graphs = graphs

    def velocity(
        self,
        x: Floats,
        mask: Floats,
        mu: Floats,
        t: Floats,
        speaker: Floats,
        cond: Floats,
        *,
        streaming: bool = False,
    ) -> Floats:
        """Velocity [B, mel bins, T], zero where `mask` is; shapes as in the stage API.

        Rows that share a time and a number of frames are computed two at once. Raises: UsageError
        for a time that is not in the table or a mask that is not right padding, SynthesisError for
        more frames than the ladder holds.
        """
        steps = [self.times.row(float(time)) for time in t]
        frames = [_valid_frames(row) for row in mask[:, 0]]
        result = np.zeros_like(x, dtype=np.float32)
        waiting = list(range(len(x)))
        while waiting:
            first = waiting[0]
            rows = [i for i in waiting if (steps[i], frames[i]) == (steps[first], frames[first])]
            rows = rows[:_ROWS_AT_ONCE]
            waiting = [i for i in waiting if i not in rows]
            with self._sized(frames[first], streaming) as sized:
                out = sized.rows(x[rows], mu[rows], speaker[rows], cond[rows], steps[first])
            result[rows, :, : frames[first]] = out
        return result

    @contextlib.contextmanager
    def solving(self, frames: int, *, streaming: bool) -> Iterator[Velocity]:
        """The velocity for all steps of one mel of `frames`: its graph stays open for the block.

        Without it a size of integers, which is open alone, would be opened at each step where
        threads solve different sizes.
        """
        with self._sized(frames, streaming) as sized:

            def velocity(
                x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
            ) -> Floats:
                return sized.rows(x, mu, speaker, cond, self.times.row(float(t[0])))

            yield velocity

    @contextlib.contextmanager
    def _sized(self, frames: int, streaming: bool) -> Iterator[_Sized]:
        variant = "chunked" if streaming else "full"
        with self._graphs.for_frames(variant, frames) as (graph, size):
            yield _Sized(graph, self._graphs.spec.graph(variant), frames, size)


def _valid_frames(mask: Floats) -> int:
    """Frames of one mask row [T]. Raises: UsageError unless its zeros are all at the end."""
    present = mask > 0
    count = int(present.sum())
    if not present[:count].all():
        raise UsageError("a mask must mark frames first, then padding", "pad on the right")
    return count
