"""Several threads on one model give what one thread gives, byte for byte."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.quantization_examples import int8_bundle

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import Engine, EngineOptions, Graph, GraphSource
from cosyvoice_cpu.runtime.ladder import GraphLadder
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph
from cosyvoice_cpu.runtime.prepacked_graphs import MOST_VARIABLE
from cosyvoice_cpu.utterances import Utterance, random_utterances

LENGTHS = (8, 30, 55, 15, 74, 45, 8, 70)  # speech tokens: three sizes of each ladder


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    """Threads change places as often as the interpreter can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def speak(stages: BundleStages, utterance: Utterance) -> np.ndarray:
    """The chain once, from ids to samples."""
    tokens = stages.generate_speech_tokens(
        utterance.text_ids,
        prompt_text_ids=utterance.prompt_text_ids,
        prompt_speech_ids=utterance.prompt_tokens,
        min_tokens=len(utterance.tokens),
        max_tokens=len(utterance.tokens),
    )
    mel = stages.tokens_to_mel(
        tokens,
        prompt_tokens=utterance.prompt_tokens,
        prompt_mel=utterance.prompt_mel,
        embedding=utterance.embedding,
    )
    return stages.mel_to_waveform(mel)


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_threads_on_one_model_give_what_one_thread_gives(
    tiny_bundle: Path, precision: str, low_memory: bool
) -> None:
    bundle = int8_bundle() if precision == "int8" else tiny_bundle
    stages = BundleStages.load(bundle, low_memory=low_memory)
    utterances = [
        replace(
            random_utterances(stages.manifest, tokens=max(LENGTHS))[0], tokens=list(range(length))
        )
        for length in LENGTHS
    ]
    alone = [speak(stages, utterance) for utterance in utterances]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda utterance: speak(stages, utterance), utterances))
    assert all(np.array_equal(got, want) for got, want in zip(together, alone, strict=True))


def test_a_ladder_of_one_size_serves_threads_that_want_different_ones() -> None:
    class OneSize(Graph):
        inputs = outputs = ()
        private_weights = True

        def __init__(self, size: int | None) -> None:
            self.size = size

        def run(self, feed):
            return {}

    ladder = GraphLadder(lambda variant, size: OneSize(size))

    def ask(number: int) -> bool:
        size = number % 5
        with ladder.use("full", size) as graph:
            assert isinstance(graph, OneSize)
            return graph.size == size

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(4000)))


@pytest.mark.parametrize("low_memory", [False, True])
def test_no_graph_is_open_twice_whatever_the_threads(tiny_bundle: Path, low_memory: bool) -> None:
    """Opened components are counted while threads are in different stages, and ask all at once."""
    lock = threading.Lock()
    opened: dict[GraphSource, weakref.ref[Graph]] = {}
    twice: list[GraphSource] = []

    def open_counted(source: GraphSource, options: EngineOptions) -> Graph:
        key = replace(source, bundle=None)  # type: ignore[arg-type]
        with lock:
            if key in opened and opened[key]() is not None:
                twice.append(key)
        graph = OnnxRuntimeGraph.open(source, options)
        with lock:
            opened[key] = weakref.ref(graph)
        return graph

    names: tuple[ComponentName, ...] = ("speech_lm", "flow_encoder", "flow_estimator", "vocoder")
    engines = dict.fromkeys(names, Engine(open_counted))
    stages = BundleStages.load(tiny_bundle, low_memory=low_memory, engines=engines)
    utterances = [
        replace(random_utterances(stages.manifest, tokens=75)[0], tokens=list(range(length)))
        for length in (8, 30, 55, 15)
    ]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda utterance: speak(stages, utterance), utterances))
    assert not twice


@pytest.mark.parametrize("low_memory", [False, True])
def test_without_a_cache_threads_of_many_sizes_hold_integer_weights_three_times_at_most(
    low_memory: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MOST_VARIABLE, "0")
    lock = threading.Lock()
    opened: list[int | None] = []
    private: set[int | None] = set()
    most = 0

    class Counted(OnnxRuntimeGraph):
        size: int | None

        def close(self) -> None:
            with lock:
                private.discard(self.size)
            super().close()

    def open_counted(source: GraphSource, options: EngineOptions) -> Graph:
        nonlocal most
        graph = Counted.open(source, options)
        assert isinstance(graph, Counted)
        graph.size = source.size
        with lock:
            opened.append(source.size)
            if graph.private_weights:
                private.add(source.size)
            most = max(most, len(private))
        return graph

    stages = BundleStages.load(
        int8_bundle(), low_memory=low_memory, engines={"flow_estimator": Engine(open_counted)}
    )
    utterance = random_utterances(stages.manifest, tokens=75)[0]

    def solve(case: tuple[int, bool]) -> np.ndarray:
        tokens, streaming = case
        return stages.tokens_to_mel(
            utterance.tokens[:tokens],
            prompt_tokens=utterance.prompt_tokens,
            prompt_mel=utterance.prompt_mel,
            embedding=utterance.embedding,
            streaming=streaming,
        )

    # Speech tokens: three sizes, each of a graph of its own for streams.
    cases = [(length, streaming) for length in (20, 45, 70) for streaming in (False, True)]
    alone = [solve(case) for case in cases]
    assert most == (0 if low_memory else 1)
    opened.clear()
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(solve, cases))
    assert all(np.array_equal(got, want) for got, want in zip(together, alone, strict=True))
    assert most == 0 if low_memory else 1 < most <= 3
    assert len(opened) <= len(cases)  # once for a solve, not at each of its steps
