"""Flow encoder and flow estimator on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Component
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.decoding.solver import solver_times
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.runtime.ladder import size_for
from cosyvoice_cpu.runtime.sessions import SessionLadder, holds_integers, open_session

HALF_STORAGE = "float16-storage"
_BATCH = 2  # the guided pair that the graphs are made for


def graph_file(variant: str, size: int | None) -> str:
    """File name of a ladder's graph; size in mel frames, None for the graph of any length."""
    return f"{variant}.onnx" if size is None else f"{variant}-{size:05d}.onnx"


class FlowEncoderEngine:
    """Tokens to `mu`, speaker embedding to `speaker`."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Raises: BundleError if the component is missing or the engine refuses it."""
        self._session = open_session(
            bundle.file("flow_encoder", "flow_encoder.onnx"), threads, prepack=False
        )
        self._lookahead = bundle.manifest.synthesis.pre_lookahead_tokens
        self._vocabulary = bundle.manifest.synthesis.speech_vocabulary

    def encode(
        self, tokens: Sequence[int], embedding: Floats, *, finalize: bool
    ) -> tuple[Floats, Floats]:
        """`mu` [80, frames] and `speaker` [80]; the last 3 tokens are context unless `finalize`.

        Negative ids count as 0. Raises: SynthesisError for ids outside the vocabulary.
        """
        ids = np.maximum(np.asarray(tokens, np.int64), 0)
        if len(ids) and ids.max() >= self._vocabulary:
            raise SynthesisError(
                f"speech id {ids.max()} is outside the model's {self._vocabulary}",
                "were these tokens made for another model?",
            )
        known = np.ones(len(ids), np.float32)
        if finalize:
            ids, known = (np.pad(array, (0, self._lookahead)) for array in (ids, known))
        mu, speaker = self._session.run(
            ["mu", "speaker"],
            {
                "tokens": ids,
                "known": known,
                "embedding": np.asarray(embedding, np.float32).reshape(1, -1),
            },
        )
        return mu, speaker[0]


class FlowEstimatorEngine:
    """Velocity at one of the solver's steps, padded to the ladder."""

    def __init__(self, bundle: Bundle, threads: int, *, low_memory: bool = False) -> None:
        """Graphs open when first needed; `low_memory` leaves integer weights in the mapped file.

        Raises: BundleError if the component is missing.
        """
        self._component: Component = bundle.component("flow_estimator")
        self._times = solver_times(bundle.manifest.synthesis.solver_steps)
        self._sizes = self._component.shapes.sizes
        prepack = holds_integers(self._component) and not low_memory

        def open_size(variant: str, size: int | None) -> Any:
            return open_session(
                bundle.file("flow_estimator", graph_file(variant, size)),
                threads,
                prepack=prepack,
                fold=self._component.precision != HALF_STORAGE,
            )

        self._ladder = SessionLadder(open_size, private_weights=prepack)

    @property
    def max_frames(self) -> int | None:
        """The ladder's top, None if any length works."""
        return self._sizes[-1] if self._sizes else None

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
        """Velocity [B, 80, T], zero where `mask` is; shapes as in the stage API.

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
            pair = pair[:_BATCH]
            waiting = [i for i in waiting if i not in pair]
            rows = [pair[0], pair[-1]]
            out = self._pair(
                *(x[rows], mu[rows], speaker[rows], cond[rows]),
                step=steps[first],
                frames=frames[first],
                streaming=streaming,
            )
            for place, row in enumerate(pair):
                result[row, :, : frames[first]] = out[place]
        return result

    def _pair(
        self,
        x: Floats,
        mu: Floats,
        speaker: Floats,
        cond: Floats,
        *,
        step: int,
        frames: int,
        streaming: bool,
    ) -> Floats:
        """x, mu, cond [2, 80, >= frames], speaker [2, 80] to [2, 80, frames]."""
        size = None
        if self._sizes:
            size = size_for(frames, self._sizes)
            if size is None:
                raise SynthesisError(
                    f"{frames} mel frames exceed the bundle's longest graph of {self._sizes[-1]}",
                    "shorten text or prompt, or export with a larger --max-seconds",
                )
        session = self._ladder.get("chunked" if streaming else "full", size)
        padding = ((0, 0), (0, 0), (0, (size or frames) - frames))
        feed = {
            name: np.pad(array[:, :, :frames].astype(np.float32, copy=False), padding)
            for name, array in (("x", x), ("mu", mu), ("cond", cond))
        }
        feed["speaker"] = np.asarray(speaker, np.float32)
        feed["step"] = np.array(step)
        feed["valid_frames"] = np.array([frames])
        velocity: Floats = session.run(["velocity"], feed)[0]
        return velocity[:, :, :frames]

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
