"""Runs calibration items through an altered graph of one component, as synthesis would.

    flow       all steps of the solver, both halves of the guidance, tokens and prompt of the clip
    speech LM  one pass over prompt, text and the clip's tokens: teacher-forced

The stage API gives a component's outputs alone; here every output of the graph is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.decoding.noise import flow_noise
from cosyvoice_cpu.decoding.solver import solve
from cosyvoice_cpu.generations import generation_named
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.ladder import size_for
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session
from cosyvoice_cpu.runtime.speech_lm import EmbeddingRows
from cosyvoice_cpu.utterances import Utterance

Arrays = dict[str, NDArray[Any]]
Alter = Callable[[onnx.ModelProto], None]

_SPEECH_LM = "speech_lm.onnx"


@dataclass(frozen=True, eq=False)
class Call:
    """One run of the graph: what it was given, and all it gave but the KV cache."""

    feed: Arrays
    outputs: Arrays


def graph_for(bundle: Bundle, name: ComponentName, item: Utterance) -> Path:
    """The float graph that `item` runs through."""
    if name == "speech_lm":
        return bundle.file(name, _SPEECH_LM)
    sizes = bundle.component(name).shapes.sizes
    graph = generation_named(bundle.manifest.generation).components[name].graph("full")
    return bundle.file(name, graph.file(size_for(_frames(item), sizes) if sizes else None))


def open_model(model: onnx.ModelProto, folder: Path, threads: int, *, prepack: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on `model`, whose external weights lie in `folder`.

    Raises: BundleError if the engine refuses it.
    """
    return open_session(model.SerializeToString(), threads, prepack=prepack, weights_folder=folder)


class ComponentRunner:
    """Opens the altered graph once for each size that items need."""

    def __init__(
        self, stages: BundleStages, name: ComponentName, alter: Alter, *, prepack: bool = False
    ) -> None:
        """`alter` may add outputs, which are fetched, and int64 inputs `pick` [n]: row numbers."""
        self._stages, self._name, self._alter, self._prepack = stages, name, alter, prepack
        self._sessions: dict[Path, Any] = {}

    def run(self, item: Utterance, picked: int = 1) -> Iterator[Call]:
        """Every call that `item` takes; `picked` rows are drawn from those that are no padding."""
        session = self._open(item)
        if self._name == "speech_lm":
            yield self._read(session, item, picked)
        else:
            yield from self._solve(session, item, picked)

    def again(self, item: Utterance, calls: Iterable[Call]) -> list[Call]:
        """What this graph makes of the feeds of `calls`, which another one had for `item`."""
        session = self._open(item)
        return [Call(call.feed, _run(session, call.feed)) for call in calls]

    def _open(self, item: Utterance) -> Any:
        path = graph_for(self._stages.bundle, self._name, item)
        if path not in self._sessions:
            self._sessions.clear()
            model = onnx.load(str(path), load_external_data=False)
            self._alter(model)
            self._sessions[path] = open_model(
                model, path.parent, self._stages.threads, prepack=self._prepack
            )
        return self._sessions[path]

    def _read(self, session: Any, item: Utterance, picked: int) -> Call:
        tables = EmbeddingRows(self._stages.bundle)
        speech = [*item.prompt_tokens, *item.tokens]
        rows = tables.rows(item.text_ids, item.prompt_text_ids, speech)
        count = len(rows)
        feed: Arrays = {
            "inputs_embeds": rows[None],
            "rows": np.arange(count),
            "last_position": np.array([count - 1], np.int32),
            "total_length": np.array([count], np.int32),
        }
        for entry in session.get_inputs():
            if entry.name.startswith("past_"):
                _, heads, _, width = entry.shape
                feed[entry.name] = np.zeros((1, heads, count, width), np.float32)
        feed |= _drawn(session, np.arange(count), picked)
        return Call(feed, _run(session, feed))

    def _solve(self, session: Any, item: Utterance, picked: int) -> Iterator[Call]:
        manifest = self._stages.manifest
        condition = self._stages.flow_condition(
            item.tokens,
            prompt_tokens=item.prompt_tokens,
            prompt_mel=item.prompt_mel,
            embedding=item.embedding,
        )
        calls: list[Call] = []

        def velocity(
            x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
        ) -> Floats:
            frames = x.shape[2]
            size = session.get_inputs()[0].shape[2]
            room = size - frames if isinstance(size, int) else 0
            feed: Arrays = {
                key: np.pad(array, ((0, 0), (0, 0), (0, room)))
                for key, array in (("x", x), ("mu", mu), ("cond", cond))
            }
            feed |= {
                "speaker": speaker,
                "step": np.array(len(calls)),
                "valid_frames": np.array([frames]),
            }
            halves = np.arange(len(x))[:, None] * (frames + room)
            valid = (halves + np.arange(frames)).reshape(-1)
            feed |= _drawn(session, valid, picked, seed=len(calls))
            calls.append(Call(feed, _run(session, feed)))
            result: Floats = calls[-1].outputs["velocity"][:, :, :frames]
            return result

        bins, frames = condition["mu"].shape
        synthesis = manifest.synthesis
        solve(
            velocity,
            flow_noise(frames, bins, synthesis.max_frames),
            **condition,
            preset=synthesis.solver,
        )
        yield from calls


def _drawn(session: Any, valid: NDArray[np.int64], picked: int, seed: int = 0) -> Arrays:
    """The input `pick` where the graph has one, from the numbers of rows that are no padding."""
    if all(entry.name != "pick" for entry in session.get_inputs()):
        return {}
    return {"pick": np.sort(np.random.default_rng(seed).choice(valid, picked))}


def _run(session: Any, feed: Arrays) -> Arrays:
    names = [entry.name for entry in session.get_outputs()]
    names = [name for name in names if not name.startswith("present_")]
    return dict(zip(names, session.run(names, feed), strict=True))


def _frames(item: Utterance) -> int:
    per_token = len(item.prompt_mel) // max(len(item.prompt_tokens), 1)
    return per_token * (len(item.prompt_tokens) + len(item.tokens))
