"""What flow encoder and flow estimator are fed, whatever engine runs them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Synthesis
from cosyvoice_cpu.decoding.ids import flow_token_ids
from cosyvoice_cpu.decoding.solver import Velocity, solver_times
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.generations import GraphSpec
from cosyvoice_cpu.runtime.graph import Graph
from cosyvoice_cpu.runtime.ladder import ComponentGraphs

_GUIDED = 2  # rows that the estimator's graphs are made for: conditioned and not


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

    def pair(self, x: Floats, mu: Floats, speaker: Floats, cond: Floats, step: int) -> Floats:
        """x, mu, cond [2, mel bins, >= frames], speaker [2, mel bins] to [2, mel bins, frames]."""
        padding = ((0, 0), (0, 0), (0, self.size - self.frames))
        padded = (np.pad(array[:, :, : self.frames], padding) for array in (x, mu, cond))
        feed = self.spec.feed(*padded, speaker, step, [self.frames])
        (velocity,) = self.spec.results(self.graph.run(feed))
        return velocity[:, :, : self.frames]


class FlowEstimatorStage:
    """Velocity at one of the solver's steps, padded to the ladder."""

    def __init__(self, graphs: ComponentGraphs, synthesis: Synthesis) -> None:
        """Graphs open when first needed.

        Raises: BundleError if they were made for fewer steps than the manifest says.
        """
        graphs.require_rows("modulation", synthesis.solver_steps, "solver preset")
        self._graphs = graphs
        self._times = solver_times(synthesis.solver.grid)

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

        Rows that share a time and a number of frames are computed in pairs. Raises: UsageError for
        a time that is none of the solver's or a mask that is not right padding, SynthesisError for
        more frames than the ladder holds.
        """
        steps = [self._step(float(time)) for time in t]
        frames = [_valid_frames(row) for row in mask[:, 0]]
        result = np.zeros_like(x, dtype=np.float32)
        waiting = list(range(len(x)))
        while waiting:
            first = waiting[0]
            pair = [i for i in waiting if (steps[i], frames[i]) == (steps[first], frames[first])]
            pair = pair[:_GUIDED]
            waiting = [i for i in waiting if i not in pair]
            rows = [pair[0], pair[-1]]
            with self._sized(frames[first], streaming) as sized:
                out = sized.pair(x[rows], mu[rows], speaker[rows], cond[rows], steps[first])
            for place, row in enumerate(pair):
                result[row, :, : frames[first]] = out[place]
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
                return sized.pair(x, mu, speaker, cond, self._step(float(t[0])))

            yield velocity

    @contextlib.contextmanager
    def _sized(self, frames: int, streaming: bool) -> Iterator[_Sized]:
        variant = "chunked" if streaming else "full"
        with self._graphs.for_frames(variant, frames) as (graph, size):
            yield _Sized(graph, self._graphs.spec.graph(variant), frames, size)

    def _step(self, time: float) -> int:
        distance = np.abs(self._times - time)
        step = int(distance.argmin())
        if distance[step] > 1e-6:
            raise UsageError(
                f"t = {time:g} is none of the solver's {len(self._times)} steps in this bundle",
                "use one of its steps, or the torch reference for any t",
            )
        return step


def _valid_frames(mask: Floats) -> int:
    """Frames of one mask row [T]. Raises: UsageError unless its zeros are all at the end."""
    present = mask > 0
    count = int(present.sum())
    if not present[:count].all():
        raise UsageError("a mask must mark frames first, then padding", "pad on the right")
    return count
