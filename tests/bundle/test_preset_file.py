"""Presets in a file of their own: strict, and nothing in it that was not judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.bundle_examples import SOLVER
from support.networks_golden import CHECKPOINT

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.bundle.preset_file import PresetFile, read_preset_file, write_preset_file
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

DISTILLED = {
    "method": "euler",
    "steps": 2,
    "grid": [0.0, 0.5, 1.0],
    "guidance_rate": 0.0,
    "guidance_range": [0.0, 1.0],
}


def judged(passed: bool = True) -> QualityResult:
    return QualityResult(
        component=None,
        preset="fast",
        measure="mos_lost",
        value=0.05 if passed else 0.3,
        bound="at_most",
        limit=0.1,
        passed=passed,
    )


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = PresetFile(presets={"fast": SOLVER}, results=[judged()])
    (tmp_path / "p.json").write_bytes(write_preset_file(content))
    assert read_preset_file(tmp_path / "p.json") == content


@pytest.mark.parametrize("results", [[], [judged(passed=False)]])
def test_a_preset_that_was_not_judged_good_is_refused(
    tmp_path: Path, results: list[QualityResult]
) -> None:
    path = tmp_path / "p.json"
    path.write_bytes(write_preset_file(PresetFile(presets={"fast": SOLVER}, results=results)))
    with pytest.raises(UsageError, match="'fast' was not judged as good as the default") as refused:
        read_preset_file(path)
    assert "quantize --recipe fast" in refused.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "Expecting property name"),
        ('{"presets": {}}', "missing required field `results`"),
        ('{"presets": {}, "results": [], "x": 1}', "unknown field `x`"),
        ('{"presets": {}, "presets": {}, "results": []}', "twice"),
        (json.dumps({"presets": {"default": {**DISTILLED, "steps": 0}}, "results": []}), ">= 1"),
    ],
)
def test_what_is_no_preset_file_is_refused_by_name(
    tmp_path: Path, content: str, message: str
) -> None:
    path = tmp_path / "p.json"
    path.write_text(content)
    with pytest.raises(UsageError, match=message) as refused:
        read_preset_file(path)
    assert str(path) in refused.value.what


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.json can't be read"):
        read_preset_file(tmp_path / "none.json")


def test_a_distilled_flow_brings_its_own_steps(tmp_path: Path) -> None:
    presets = tmp_path / "p.json"
    presets.write_text(json.dumps({"presets": {"default": DISTILLED}, "results": []}))
    bundle = tmp_path / "bundle"
    manifest = export_checkpoint(
        CHECKPOINT, bundle, max_seconds=4, front_end=False, presets=presets
    )
    assert manifest.synthesis.solver.steps == 2
    assert manifest.synthesis.solver_times == [0.0, 0.5]
    stages = BundleStages.load(bundle)
    voice = {
        "prompt_tokens": [],
        "prompt_mel": np.zeros((0, 80), np.float32),
        "embedding": np.ones(192, np.float32),
    }
    mel = stages.tokens_to_mel([1, 2, 3, 4], **voice, steps=manifest.synthesis.solver_steps)
    assert mel.shape == (80, 8)
    with pytest.raises(UsageError, match="can't take 10 euler steps"):
        stages.tokens_to_mel([1, 2, 3, 4], **voice)
