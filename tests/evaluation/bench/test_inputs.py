"""What a bench makes to run on, and removes again."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_cpu.cli.bench import bundle_makers
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.bench.inputs import BenchInputs, BundleMaker
from cosyvoice_cpu.evaluation.bench.workload import Workload

SHORT = Workload(seconds=1.0, prompt_seconds=1.0, decode_tokens=2, solver_steps=1)


def copying(source: Path, path: Path) -> None:
    path.write_text(f"made of {source.name.rpartition('-')[2]}")


MAKERS = {"plain": BundleMaker(copying), "small": BundleMaker(copying, source="plain")}


def test_rows_made_of_a_checkpoint_are_kept_apart_by_length_and_removed(tiny_checkpoint, tmp_path):
    notices: list[str] = []
    makers = bundle_makers(SHORT, 1, force=False)
    with BenchInputs(tmp_path, SHORT, makers, notices.append, keep=True) as inputs:
        first = inputs.rows(["eager", "dynamic"], tiny_checkpoint)
    assert [spec.kind for spec in first] == ["reference", "bundle"]
    with BenchInputs(tmp_path, SHORT, makers, notices.append) as again:
        assert again.rows(["dynamic"], tiny_checkpoint) == first[1:]
    assert len(notices) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_what_is_not_to_be_kept_is_made_once_and_goes_with_the_run(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    work = tmp_path / "work"
    notices: list[str] = []
    with BenchInputs(work, SHORT, MAKERS, notices.append) as inputs:
        rows = inputs.rows(["plain", "small"], checkpoint)
        assert inputs.rows(["plain", "small"], checkpoint) == rows
        assert [Path(row.path).read_text() for row in rows] == [
            "made of checkpoint",
            "made of plain",
        ]
    assert len(notices) == 2
    assert list(work.iterdir()) == []


def test_a_bundle_that_is_made_of_another_has_that_made_first(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    notices: list[str] = []
    with BenchInputs(tmp_path / "work", SHORT, MAKERS, notices.append) as inputs:
        (row,) = inputs.rows(["small"], checkpoint)
        assert Path(row.path).read_text() == "made of plain"
    assert [notice.rpartition("-")[2] for notice in notices] == ["plain", "small"]


def test_rows_are_those_of_torch_and_of_the_makers(tmp_path):
    with pytest.raises(UsageError, match="there is no row 'onnx'") as caught:
        BenchInputs(tmp_path, SHORT, MAKERS, print).rows(["onnx"], tmp_path)
    assert caught.value.hint == "rows: eager, bf16, compile, plain, small, or bundles"
