"""The embedded demo is what its program makes of its sources."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.demo import DEMO_BUNDLE
from tools.make_demo_bundle import CHECKPOINT, PROMPTS, make_demo_bundle

LARGEST_CHECKPOINT = 25_000_000  # bytes
ROUNDING = (
    1e-3  # of float16; what is computed in float32 differs by less from one processor to another
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "bundle"
    make_demo_bundle(folder)
    return folder


def test_the_embedded_bundle_is_what_the_program_makes(made: Path) -> None:
    files = {path.relative_to(made) for path in made.rglob("*") if path.is_file()}
    stored = {path.relative_to(DEMO_BUNDLE) for path in DEMO_BUNDLE.rglob("*") if path.is_file()}
    assert files == stored
    other = {
        file for file in files if (made / file).read_bytes() != (DEMO_BUNDLE / file).read_bytes()
    }
    # Nothing on the processor that the embedded one was made on. Elsewhere kernels sum in another
    # order, which the last bits of float arrays show, and with them their digests.
    for file in other:
        assert file.suffix in {".safetensors", ".json"}, f"{file}: python -m tools.make_demo_bundle"
        compare = _assert_close if file.suffix == ".safetensors" else _assert_same_but_rounding
        compare(made / file, DEMO_BUNDLE / file)


def _assert_close(made: Path, stored: Path) -> None:
    got, want = load_file(made), load_file(stored)
    assert list(got) == list(want)
    for name in got:
        assert got[name].dtype == want[name].dtype
        if got[name].dtype.kind == "f":
            np.testing.assert_allclose(got[name], want[name], ROUNDING, ROUNDING, err_msg=name)
        else:
            assert np.array_equal(got[name], want[name]), name
    with safe_open(made, "np") as one, safe_open(stored, "np") as other:
        assert one.metadata() == other.metadata()


def _assert_same_but_rounding(made: Path, stored: Path) -> None:
    assert _without_rounding(made) == _without_rounding(stored)


def _without_rounding(manifest: Path) -> Any:
    text = re.sub(r'"sha256": *"[0-9a-f]{64}"', '"sha256": ""', manifest.read_text("utf-8"))
    content = json.loads(text)
    for component in content["components"].values():
        component["parity"] = sorted(component["parity"])
    return content


def test_the_checkpoint_is_official_in_layout_and_small() -> None:
    checkpoint = open_checkpoint(CHECKPOINT)
    assert checkpoint.generation.name == "cosyvoice3"
    size = sum(checkpoint.path(file).stat().st_size for file in checkpoint.files)
    assert size < LARGEST_CHECKPOINT


def test_every_prompt_clip_has_its_words_and_its_origin() -> None:
    clips = sorted(PROMPTS.glob("*.flac"))
    origin = (PROMPTS / "ORIGIN.md").read_text(encoding="utf-8")
    words = dict(re.findall(r"^- `(.+)`: (.+)$", origin, re.MULTILINE))
    assert clips
    assert [clip.name for clip in clips] == sorted(words)
