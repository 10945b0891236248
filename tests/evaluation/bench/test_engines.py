"""What a row of a bench is made of."""

from __future__ import annotations

from cosyvoice_cpu.evaluation.bench.engines import bundle_specs


def test_two_bundles_of_one_name_are_told_apart(tmp_path):
    names = [spec.name for spec in bundle_specs([tmp_path / "a" / "voice", tmp_path / "b/voice"])]
    assert names == [str(tmp_path / "a" / "voice"), str(tmp_path / "b" / "voice")]
