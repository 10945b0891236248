"""The seam for engines: a third one takes one class, and a bundle names its own."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.component_runner import run_component
from cosyvoice_cpu.decoding.noise import harmonic_noise
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import (
    ENGINES,
    Engine,
    EngineOptions,
    Graph,
    GraphSource,
    Recording,
    engine_named,
)
from cosyvoice_cpu.runtime.ladder import ComponentGraphs
from cosyvoice_cpu.runtime.onnxruntime_engine import ENGINE as ONNX_RUNTIME
from cosyvoice_cpu.runtime.speech_lm import SpeechLMStage
from cosyvoice_cpu.stages import load_bundle
from cosyvoice_cpu.utterances import random_utterances

NETWORKS = ("speech_lm", "flow_encoder", "flow_estimator", "vocoder")


class CountingGraph(Graph):
    """The whole of a third engine: counts its calls and has another one compute."""

    calls: ClassVar[Counter[str]] = Counter()

    def __init__(self, source: GraphSource, options: Any) -> None:
        self._graph, self._name = ONNX_RUNTIME.open(source, options), source.variant

    @property
    def inputs(self):
        return self._graph.inputs

    @property
    def outputs(self):
        return self._graph.outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls[self._name] += 1
        return self._graph.run(feed)


def test_a_third_engine_of_one_class_speaks_like_the_first(tiny_bundle: Path) -> None:
    stages = BundleStages.load(tiny_bundle)
    other = BundleStages.load(tiny_bundle, engines=dict.fromkeys(NETWORKS, Engine(CountingGraph)))
    utterance = random_utterances(stages.manifest, tokens=8)[0]
    CountingGraph.calls.clear()
    for name in NETWORKS:
        want, got = (run_component(each, name, utterance) for each in (stages, other))
        assert want.keys() == got.keys()
        assert all(np.array_equal(got[key], want[key]) for key in want)
    steps = stages.manifest.synthesis.solver_steps
    assert CountingGraph.calls == {
        "speech_lm": 1,
        "flow_encoder": 3,  # of itself, of the estimator, of the vocoder's mel
        "full": 2 * steps,
        "f0_predictor": 1,
        "excitation": 1,
        "generator": 1,
    }


def test_a_cache_that_an_engine_copies_is_that_which_another_writes_in_place(
    tiny_bundle: Path,
) -> None:
    """Decoding beyond the first capacity, so that the buffers grow on the way."""
    sessions = []
    for engines in ({}, {"speech_lm": Engine(CountingGraph)}):
        stages = BundleStages.load(tiny_bundle, engines=engines)
        session = stages.speech_lm_session()
        first = session.prefill(range(100), range(300), range(110))  # 512 positions
        sessions.append([first, *(session.step(token) for token in range(6))])
    for copied, in_place in zip(*sessions, strict=True):
        assert np.array_equal(copied, in_place)


def test_an_engine_can_be_named_per_component(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = SimpleNamespace(ENGINE=Engine(CountingGraph))
    monkeypatch.setitem(sys.modules, "counting_engine", module)
    monkeypatch.setitem(ENGINES, "counting", "counting_engine:ENGINE")
    CountingGraph.calls.clear()
    stages = load_bundle(tiny_bundle, engines={"vocoder": "counting"})
    stages.mel_to_waveform(np.full((80, 20), -5, np.float32))
    assert CountingGraph.calls == {"f0_predictor": 1, "excitation": 1, "generator": 1}


def test_an_unknown_engine_is_refused_with_those_there_are(tiny_bundle: Path) -> None:
    stages = load_bundle(tiny_bundle, engines={"vocoder": "abacus"})
    with pytest.raises(BundleError) as refused:
        stages.mel_to_waveform(np.full((80, 20), -5, np.float32))
    assert refused.value.what == (
        "the bundle wants the engine 'abacus', which this cosyvoice-cpu has not"
    )
    assert refused.value.hint == f"engines: {', '.join(ENGINES)}; update cosyvoice-cpu"


def test_the_manifests_engine_is_the_one_that_opens(tiny_bundle: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    for name in NETWORKS:
        assert engine_named(bundle.component(name).engine) is ONNX_RUNTIME


def test_a_recording_takes_the_graphs_opened_with_it_and_no_others(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    recording = Recording(tmp_path)
    mel = np.full((80, 20), -5, np.float32)
    BundleStages.load(tiny_bundle).mel_to_waveform(mel)
    BundleStages.load(tiny_bundle, recording=recording).mel_to_waveform(mel)
    files = recording.files()
    assert set(files) == {"f0_predictor", "excitation", "generator-00050"}
    assert all(path.parent == tmp_path and path.stat().st_size for path in files.values())


@pytest.mark.parametrize("engine", [ONNX_RUNTIME, Engine(CountingGraph)])
def test_no_value_of_the_cache_is_read_before_it_is_written(
    tiny_bundle: Path, engine: Engine
) -> None:
    """NaN in the place of the initial value: had it been read, it would show."""
    bundle = open_bundle(tiny_bundle)
    graphs = ComponentGraphs(bundle, "speech_lm", EngineOptions(), {"speech_lm": engine})
    clean, poisoned = SpeechLMStage(graphs, bundle), SpeechLMStage(graphs, bundle)
    poisoned.caches = [(replace(cache, initial=np.nan), *rest) for cache, *rest in poisoned.caches]
    wanted, got = clean.start(), poisoned.start()
    for session in (wanted, got):
        session.prefill(range(5), range(3), range(4))
    for token in range(6):
        assert np.array_equal(got.step(token), wanted.step(token))


def test_a_noise_that_is_given_takes_the_place_of_the_fixed_one(tiny_bundle: Path) -> None:
    stages = BundleStages.load(tiny_bundle)
    f0 = np.full(10, 120, np.float32)
    fixed = harmonic_noise(
        4800, stages.synthesis.harmonic_noise_skip, stages.synthesis.harmonics, 7_200_000
    )
    assert np.array_equal(stages.f0_to_source(f0, noise=fixed), stages.f0_to_source(f0))
    other = np.random.default_rng(0).random(fixed.shape, np.float32)
    assert not np.array_equal(stages.f0_to_source(f0, noise=other), stages.f0_to_source(f0))
