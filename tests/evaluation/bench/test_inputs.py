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
    inputs = BenchInputs(tmp_path, SHORT, makers, notices.append)
    first = inputs.rows(["eager", "dynamic"], tiny_checkpoint)
    assert [spec.kind for spec in first] == ["reference", "bundle"]
    again = BenchInputs(tmp_path, SHORT, makers, notices.append)
    assert again.rows(["dynamic"], tiny_checkpoint) == first[1:]
    assert len(notices) == 1
    again.remove()  # it made nothing
    assert len(list(tmp_path.iterdir())) == 1
    inputs.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_made_of_another_has_that_made_first(tmp_path):
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    notices: list[str] = []
    (row,) = BenchInputs(tmp_path / "work", SHORT, MAKERS, notices.append).rows(
        ["small"], checkpoint
    )
    assert Path(row.path).read_text() == "made of plain"
    assert [notice.rpartition("-")[2] for notice in notices] == ["plain", "small"]


def test_rows_are_those_of_torch_and_of_the_makers(tmp_path):
    with pytest.raises(UsageError, match="there is no row 'onnx'") as caught:
        BenchInputs(tmp_path, SHORT, MAKERS, print).rows(["onnx"], tmp_path)
    assert caught.value.hint == "rows: eager, bf16, compile, plain, small, or bundles"
