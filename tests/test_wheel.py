"""What users install: the package with its data, without recipe, tools and tests."""

from __future__ import annotations

from pathlib import Path

from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parent.parent


def test_the_wheel_holds_the_package_and_nothing_else() -> None:
    files = {
        file.distribution_path
        for file in WheelBuilder(str(ROOT)).recurse_included_files()
        if file.distribution_path
    }
    assert {name.partition("/")[0] for name in files} == {"cosyvoice_cpu"}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "cosyvoice_cpu").rglob("*.py")}
    assert sources <= files
    for kind in (
        "recipes/auto.toml",
        "calibration_data/pairs.jsonl",
        "demo/bundle/manifest.json",
        "demo/bundle/speakers/hibari-heart-1.safetensors",
        "data/sentences.tsv",
    ):
        assert any(name.endswith(kind) for name in files), kind
