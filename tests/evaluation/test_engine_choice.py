"""Engines of flow and vocoder: chosen by name or by `tune`, compared before they speak."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.errors import EngineParityError, MissingExtraError, UsageError
from cosyvoice_cpu.evaluation import engine_choice
from cosyvoice_cpu.evaluation.bench.tune_engines import EngineTimes, tune_engines
from cosyvoice_cpu.evaluation.engine_choice import (
    CHOOSABLE,
    ONNX_RUNTIME,
    chosen_engines,
    remember_fastest,
    require_parity,
)
from cosyvoice_cpu.runtime.graph import ENGINES, Engine, GraphSource
from cosyvoice_cpu.runtime.onnxruntime_engine import ENGINE as ONNX
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph

FLOW = "flow_estimator"


class LouderGraph(OnnxRuntimeGraph):
    """An engine whose velocity is wrong."""

    opened = 0

    @classmethod
    def open(cls, source: GraphSource, options: Any) -> Any:
        LouderGraph.opened += 1
        graph = ONNX.open(source, options)
        if source.component == FLOW:
            right = graph.run
            graph.run = lambda feed: {k: np.float32(1.5) * v for k, v in right(feed).items()}
        return graph


class SameGraph(OnnxRuntimeGraph):
    """An engine that is right."""

    opened = 0

    @classmethod
    def open(cls, source: GraphSource, options: Any) -> Any:
        SameGraph.opened += 1
        return ONNX.open(source, options)


LOUDER, SAME = Engine(LouderGraph.open), Engine(SameGraph.open)


@pytest.fixture
def bundle(tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))
    for name in ("louder", "same"):
        monkeypatch.setitem(ENGINES, name, f"{__name__}:{name.upper()}")
    monkeypatch.setattr(engine_choice, "ENGINE_NAMES", (ONNX_RUNTIME, "same", "louder"))
    monkeypatch.setattr(engine_choice, "installed_engines", lambda: [ONNX_RUNTIME, "same"])
    return open_bundle(tiny_bundle)


def test_nothing_is_chosen_where_nothing_is_said_or_known(bundle: Bundle) -> None:
    assert chosen_engines(bundle, None, 1) == {}


def test_an_engine_by_name_computes_flow_and_vocoder_and_not_the_speech_lm(bundle: Bundle) -> None:
    assert chosen_engines(bundle, "same", 1) == dict.fromkeys(CHOOSABLE, "same")
    assert "speech_lm" not in CHOOSABLE


def test_an_engine_is_compared_once_for_each_bundle_and_version(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = require_parity(bundle, "same", 1)
    assert found.keys() == {"mel", "streamed mel", "waveform"}
    assert min(found.values()) >= 100
    assert require_parity(bundle, "same", 1) == {}
    monkeypatch.setattr(engine_choice, "_versions", lambda: "of tomorrow")
    assert require_parity(bundle, "same", 1) == found


def test_an_engine_that_gives_something_else_is_refused(bundle: Bundle) -> None:
    for _ in range(2):  # and not taken for compared after that
        with pytest.raises(EngineParityError) as caught:
            chosen_engines(bundle, "louder", 1)
        assert caught.value.what.startswith("louder gives another mel than ONNX Runtime with ")
        assert caught.value.what.endswith(" dB, at least 60 expected")
        assert "--engine onnxruntime" in caught.value.hint


def test_an_unknown_engine_is_refused_by_name(bundle: Bundle) -> None:
    with pytest.raises(UsageError) as caught:
        chosen_engines(bundle, "tensorrt", 1)
    assert caught.value.what == "there is no engine 'tensorrt'"
    assert caught.value.hint == "engines: onnxruntime, same, louder"


def test_a_missing_library_names_its_extra_before_anything_is_compared(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cosyvoice_cpu.runtime import openvino_engine

    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path))
    monkeypatch.setitem(sys.modules, "openvino", None)
    openvino_engine._core.cache_clear()
    notes: list[str] = []
    with pytest.raises(MissingExtraError, match="the engine openvino needs its library"):
        chosen_engines(open_bundle(tiny_bundle), "openvino", 1, notes.append)
    assert notes == []
    openvino_engine._core.cache_clear()


def test_what_tune_found_is_taken_where_nothing_is_said(bundle: Bundle) -> None:
    remember_fastest(bundle, {FLOW: "same", "vocoder": ONNX_RUNTIME})
    assert chosen_engines(bundle, None, 1) == {FLOW: "same", "vocoder": ONNX_RUNTIME}
    assert chosen_engines(bundle, ONNX_RUNTIME, 1) == dict.fromkeys(CHOOSABLE, ONNX_RUNTIME)


def test_what_is_no_longer_installed_gives_way_to_onnx_runtime(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_fastest(bundle, {FLOW: "same", "vocoder": "gone"})
    assert chosen_engines(bundle, None, 1) == {FLOW: "same", "vocoder": ONNX_RUNTIME}


def test_tune_times_each_engine_that_is_right(bundle: Bundle) -> None:
    notes: list[str] = []
    times = tune_engines(bundle, [ONNX_RUNTIME, "same", "louder"], 1, repeat=1, notify=notes.append)
    assert [found.component for found in times] == list(CHOOSABLE)
    assert all(found.seconds.keys() == {ONNX_RUNTIME, "same"} for found in times)
    assert any(note.startswith("left out: louder gives another mel") for note in notes)


def test_an_engine_has_to_gain_clearly() -> None:
    assert EngineTimes("vocoder", {ONNX_RUNTIME: 1.0, "same": 0.99}).fastest == ONNX_RUNTIME
    found = EngineTimes("vocoder", {ONNX_RUNTIME: 1.3, "same": 1.0})
    assert (found.fastest, found.speedup("same")) == ("same", 1.3)
