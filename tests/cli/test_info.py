"""The command `info`."""

from __future__ import annotations

import json
from pathlib import Path

from support.command_line import run


def test_info_lists_components_and_says_that_there_is_no_speaker(tiny_bundle: Path) -> None:
    outcome = run("info", tiny_bundle)
    assert (outcome.code, outcome.stderr) == (0, "")
    for word in ("cosyvoice3", "speech_lm", "float32", "mel frames", "speakers: none yet"):
        assert word in outcome.stdout


def test_info_as_json_is_the_manifest_with_path_and_bytes(tiny_bundle: Path) -> None:
    content = json.loads(run("info", tiny_bundle, "--json").stdout)
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert content == {**manifest, "path": str(tiny_bundle), "bytes": content["bytes"]}
    files = [path for path in tiny_bundle.rglob("*") if path.is_file()]
    assert content["bytes"] == sum(path.stat().st_size for path in files)


def test_info_on_a_folder_that_is_no_bundle_is_two_lines(tmp_path: Path) -> None:
    outcome = run("info", tmp_path)
    assert outcome.code == 1
    assert outcome.stderr.splitlines() == [
        f"error: {tmp_path} is not a bundle: it has no manifest.json",
        "hint:  make one with `cosyvoice-cpu export`",
    ]
