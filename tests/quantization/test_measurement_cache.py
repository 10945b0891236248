"""A quantization that was interrupted goes on where it stopped, and only if nothing has changed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from support.quantization_examples import (
    copy_of,
    float_bundle,
    quantize_on_random_ids,
    sign_again,
    stored,
)

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.quantization import QuantizationReport
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache


class Stop:
    """Interrupts at the first step whose name holds `word`, as Ctrl-C would."""

    def __init__(self, word: str) -> None:
        self.word = word
        self.steps: list[str] = []

    def __call__(self, what: str, done: float) -> None:
        self.steps.append(what)
        if self.word in what:
            raise KeyboardInterrupt


def interrupted(output: Path, word: str = "measuring speed", recipe: str = "int8") -> None:
    with pytest.raises(KeyboardInterrupt):
        quantize_on_random_ids(float_bundle(), output, recipe=recipe, progress=Stop(word))


def measured(report: QuantizationReport) -> list[tuple[str, float]]:
    return [(result.measure, result.value) for result in report.results]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(folder))
    return folder


def test_an_interrupted_run_leaves_nothing_beside_its_output_and_goes_on(
    tmp_path: Path, own_cache: Path
) -> None:
    places = tmp_path / "places"
    places.mkdir()
    interrupted(places / "out")
    assert list(places.iterdir()) == []
    report = quantize_on_random_ids(float_bundle(), places / "out", recipe="int8")
    assert report.reused == 2  # the speech LM's quality on two items
    assert list((own_cache / "quantize").iterdir()) == []
    fresh = quantize_on_random_ids(float_bundle(), places / "fresh", recipe="int8")
    assert fresh.reused == 0
    assert measured(fresh) == measured(report)


def test_another_recipe_uses_only_what_float32_gave(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")  # after the speech LM's items
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe="dynamic-int8")
    assert report.reused == 2  # float32's logits of two items
    fresh = quantize_on_random_ids(float_bundle(), tmp_path / "fresh", recipe="dynamic-int8")
    assert measured(fresh) == measured(report)


def test_a_changed_bundle_starts_afresh(tmp_path: Path) -> None:
    interrupted(tmp_path / "out")
    bundle = copy_of(float_bundle(), tmp_path)
    weight = stored(bundle / "speech_lm" / "weights.safetensors", "head.weight")
    weight[0] += np.float32(1)
    sign_again(bundle)
    assert quantize_on_random_ids(bundle, tmp_path / "out", recipe="int8").reused == 0


def test_a_damaged_record_is_measured_again(tmp_path: Path, own_cache: Path) -> None:
    interrupted(tmp_path / "out")
    for path in (own_cache / "quantize").rglob("*.*"):
        path.write_bytes(b"\xff damaged")
    assert quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe="int8").reused == 0


def test_without_a_cache_everything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "file" / "cache"))
    interrupted(tmp_path / "out")
    report = quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe="int8")
    assert (report.written, report.reused) == (True, 0)


def test_a_refused_result_is_written_with_force_without_measuring_again(tmp_path: Path) -> None:
    from cosyvoice_cpu.errors import GateRefusedError

    recipe = tmp_path / "strict.toml"
    recipe.write_text(
        'name = "strict"\ndescription = ""\n[components.speech_lm]\nkernel = "weight-only-int8"\n'
        "[components.speech_lm.limits]\nlogits_sqnr_db = 90.0\n"
    )
    with pytest.raises(GateRefusedError):
        quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe=str(recipe))
    steps = Stop("no such step")
    report = quantize_on_random_ids(
        float_bundle(), tmp_path / "out", recipe=str(recipe), force=True, progress=steps
    )
    assert report.forced
    assert report.reused == 3  # two items and the speed


def test_what_nobody_took_up_again_is_removed_after_a_week(tmp_path: Path, own_cache: Path) -> None:
    interrupted(tmp_path / "out")
    (folder,) = (own_cache / "quantize").iterdir()
    eight_days_ago = time.time() - 8 * 24 * 3600
    os.utime(folder, (eight_days_ago, eight_days_ago))
    MeasurementCache(open_bundle(float_bundle()).manifest)
    assert not folder.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_run_leaves_no_bundle_and_the_next_one_says_that_it_went_on(
    tmp_path: Path,
) -> None:
    random = ("--calibration", "random")
    arguments = [sys.executable, "-m", "cosyvoice_cpu", "quantize", str(float_bundle())]
    arguments += ["--output", str(tmp_path / "out"), "--recipe", "int8", *random]
    process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list((tmp_path / "cache").rglob("quality-*.json"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out").exists()
    done = subprocess.run(arguments, capture_output=True, check=True, text=True)
    assert "measurements of an interrupted run were reused" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == ["out"]
