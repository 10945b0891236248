"""OpenVINO on a bundle's own graphs, beside ONNX Runtime."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.component_runner import run_component
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.runtime import openvino_engine
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import EngineOptions, GraphSource, engine_named
from cosyvoice_cpu.runtime.ladder import Engines
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph
from cosyvoice_cpu.runtime.openvino_cache import compiled_folder
from cosyvoice_cpu.utterances import random_utterances

FLOW, VOCODER = "flow_estimator", "vocoder"


@pytest.fixture(autouse=True)
def needs_openvino() -> None:
    pytest.importorskip("openvino", reason="the extra openvino is not installed")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(folder))
    return folder


def error(got: NDArray[np.float32], want: NDArray[np.float32]) -> float:
    assert got.shape == want.shape
    return float(np.abs(got - want).max() / np.abs(want).max())


def with_engine(bundle: Path, engine: str) -> BundleStages:
    engines: Engines = {FLOW: engine, VOCODER: engine}
    return BundleStages.load(bundle, engines=engines)


@pytest.mark.parametrize("tokens", [3, 20])
def test_mel_and_waveform_are_onnx_runtimes(tiny_bundle: Path, tokens: int) -> None:
    stages, other = BundleStages.load(tiny_bundle), with_engine(tiny_bundle, "openvino")
    utterance = random_utterances(stages.manifest, tokens=tokens)[0]
    want, got = (run_component(each, FLOW, utterance)["mel"] for each in (stages, other))
    assert error(got, want) <= 1e-5
    want_audio, got_audio = (
        run_component(each, VOCODER, utterance, mel=want)["waveform"] for each in (stages, other)
    )
    assert error(got_audio, want_audio) <= 1e-4
    assert np.abs(got_audio - want_audio)[:48].max() <= 1e-4  # reflected samples: Abs was wrong


def test_a_stream_is_onnx_runtimes(tiny_bundle: Path) -> None:
    stages, other = BundleStages.load(tiny_bundle), with_engine(tiny_bundle, "openvino")
    utterance = random_utterances(stages.manifest, prompt=30, tokens=70)[0]
    mels, waves = [], []
    for each in (stages, other):
        flow = each.flow_stream(
            prompt_tokens=utterance.prompt_tokens,
            prompt_mel=utterance.prompt_mel,
            embedding=utterance.embedding,
        )
        pieces = [flow.push(utterance.tokens[:40]), flow.push(utterance.tokens[40:])]
        mels.append(np.concatenate([*pieces, flow.finish()], axis=1))
        vocoder = each.vocoder_stream()
        parts = [vocoder.push(mels[0][:, :37]), vocoder.push(mels[0][:, 37:]), vocoder.finish()]
        waves.append(np.concatenate(parts))
    assert error(mels[1], mels[0]) <= 1e-3  # keys and values are kept half
    assert error(waves[1], waves[0]) <= 1e-4


def test_the_same_seed_draws_the_same_tokens_whatever_runs_the_other_stages(
    tiny_bundle: Path,
) -> None:
    drawn = [
        stages.generate_speech_tokens([5, 6, 7, 8], seed=3, max_tokens=40)
        for stages in (BundleStages.load(tiny_bundle), with_engine(tiny_bundle, "openvino"))
    ]
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("variant", ["full", "chunked"])
def test_velocity_is_onnx_runtimes_at_every_length_and_every_time(variant: str) -> None:
    bundle, options = open_bundle(DEMO_BUNDLE), EngineOptions()
    source = GraphSource(bundle, FLOW, variant)
    graph = engine_named("openvino").open(source, options)
    rng = np.random.default_rng(0)
    size = bundle.component(FLOW).shapes.sizes[1]
    expected = engine_named("onnxruntime").open(replace(source, size=size), options)
    for frames in (40, 60, size - 1, size):
        mels = [rng.normal(size=(2, 80, frames)).astype(np.float32) for _ in range(3)]
        speaker = rng.normal(size=(2, 80))
        padded = (np.pad(mel, ((0, 0), (0, 0), (0, size - frames))) for mel in mels)
        want = expected.run(source.spec.feed(*padded, speaker, 3, [frames]))["velocity"]
        feed = source.spec.feed(*mels, speaker, 3, [frames])
        for _ in range(2):
            assert error(graph.run(feed)["velocity"], want[:, :, :frames]) <= 1e-5


def test_graphs_in_float64_stay_with_onnx_runtime(tiny_bundle: Path) -> None:
    bundle, engine = open_bundle(tiny_bundle), engine_named("openvino")
    for variant in ("f0_predictor", "excitation"):
        graph = engine.open(GraphSource(bundle, VOCODER, variant), EngineOptions())
        assert isinstance(graph, OnnxRuntimeGraph)


def test_threads_share_one_graph_and_get_what_is_theirs(tiny_bundle: Path) -> None:
    stages = with_engine(tiny_bundle, "openvino")
    utterances = random_utterances(stages.manifest, count=4, tokens=6)
    alone = [run_component(stages, FLOW, each)["mel"] for each in utterances]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: run_component(stages, FLOW, each)["mel"], utterances))
    for got, want in zip(together, alone, strict=True):
        assert np.array_equal(got, want)


def test_a_graph_is_compiled_once_and_read_from_the_cache_after_that(
    tiny_bundle: Path, cache: Path
) -> None:
    bundle, engine = open_bundle(tiny_bundle), engine_named("openvino")
    source = GraphSource(bundle, VOCODER, "generator")
    rng = np.random.default_rng(0)
    feeds = [
        source.spec.feed(rng.normal(size=(1, 80, n + 4)), rng.normal(size=(1, n * 480)), [n])
        for n in (50, 90, 50)
    ]

    def waveforms() -> list[NDArray[np.float32]]:
        graph = engine.open(source, EngineOptions())
        return [graph.run(feed)["waveform"] for feed in feeds]

    compiled = waveforms()
    (folder,) = (cache / "openvino").iterdir()
    (blob,) = folder.glob("*.blob")
    before = blob.stat()
    for got, want in zip(waveforms(), compiled, strict=True):
        assert np.array_equal(got, want)
    assert [path.name for path in (cache / "openvino").iterdir()] == [folder.name]
    assert blob.stat().st_mtime_ns == before.st_mtime_ns


def test_the_flow_speaks_the_same_when_it_is_opened_again(tiny_bundle: Path, cache: Path) -> None:
    """What OpenVINO reads back of its compiled form does not: so none is kept."""
    utterance = random_utterances(BundleStages.load(tiny_bundle).manifest, tokens=20)[0]
    first, again = (
        run_component(with_engine(tiny_bundle, "openvino"), FLOW, utterance)["mel"] for _ in "12"
    )
    assert np.array_equal(first, again)
    assert not (cache / "openvino").exists()


def test_compiled_graphs_of_another_version_are_dropped(tiny_bundle: Path, cache: Path) -> None:
    bundle = open_bundle(tiny_bundle)
    for version in ("1.0", "2.0"):
        with compiled_folder(bundle, VOCODER, ["generator"], version) as folder:
            assert folder is not None
            (folder / "graph.blob").write_bytes(b"")
    assert [path.name[:4] for path in (cache / "openvino").iterdir()] == ["2.0-"]


def test_a_cache_that_others_may_write_to_is_not_used(tiny_bundle: Path, cache: Path) -> None:
    (cache / "openvino").mkdir(parents=True)
    (cache / "openvino").chmod(0o777)
    with compiled_folder(open_bundle(tiny_bundle), VOCODER, ["generator"], "1.0") as folder:
        assert folder is None


def test_without_the_library_the_extra_is_named(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    openvino_engine._core.cache_clear()
    monkeypatch.setitem(sys.modules, "openvino", None)
    source = GraphSource(open_bundle(tiny_bundle), VOCODER, "generator")
    with pytest.raises(MissingExtraError) as caught:
        engine_named("openvino").open(source, EngineOptions())
    assert caught.value.what == "the engine openvino needs its library"
    assert caught.value.hint == 'install it with: pip install "cosyvoice-cpu[openvino]"'
    openvino_engine._core.cache_clear()


def test_nothing_is_reported_to_anybody(tiny_bundle: Path, tmp_path: Path) -> None:
    program = """
import sys
seen = []
sys.addaudithook(lambda event, _: seen.append(event) if event.startswith("socket.") else None)
from pathlib import Path
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.runtime.graph import EngineOptions, GraphSource, engine_named
source = GraphSource(open_bundle(Path(sys.argv[1])), "vocoder", "generator")
engine_named("openvino").open(source, EngineOptions())
print(seen)
"""
    home = tmp_path / "home"
    home.mkdir()
    run = subprocess.run(
        [sys.executable, "-c", program, str(tiny_bundle)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(home)},
    )
    assert run.stdout.strip() == "[]"
    assert not list(home.iterdir())  # where telemetry would keep its consent and its id


def on_a_processor_with(instruction_set: str, bundle: Path) -> subprocess.CompletedProcess[str]:
    """What `synth` says there, as far as OpenVINO can be told that a processor has less."""
    output = str(bundle.parent / f"{instruction_set}.wav")
    command = ["synth", "--engine", "openvino", "--output", output, "Hello."]
    return subprocess.run(
        [sys.executable, "-m", "cosyvoice_cpu", *command],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "ONEDNN_MAX_CPU_ISA": instruction_set},
    )


def test_a_processor_without_avx512_speaks(tmp_path: Path) -> None:
    run = on_a_processor_with("AVX2", tmp_path / "bundle")
    assert run.returncode == 0, run.stderr
    assert "s of audio" in run.stdout


def test_where_openvino_has_no_kernels_the_other_engine_is_named(tmp_path: Path) -> None:
    run = on_a_processor_with("SSE41", tmp_path / "bundle")
    assert run.returncode == 1
    *_, what, hint = run.stderr.splitlines()
    assert re.fullmatch(r"error: OpenVINO .* can't compute on this processor: .*bad comb.*", what)
    assert hint == "hint:  take the engine onnxruntime"
