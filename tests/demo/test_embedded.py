"""The embedded demo: what is in the package, and the bundle that is made of it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import wave
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import PROGRAM, WITHOUT_TORCH, run

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.demo import embedded

LARGEST_FILE = 25_000_000  # bytes; the package is to stay small


@pytest.fixture(scope="module")
def cache() -> Path:
    """The tests' cache folder, in which two processes at once made the demo."""
    folder = Path(os.environ["COSYVOICE_CPU_CACHE"])
    shutil.rmtree(folder / "demo", ignore_errors=True)
    processes = [
        subprocess.Popen(
            [*PROGRAM, "synth", "Hello", "--output", "-"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    outcomes = [(*process.communicate(timeout=300), process.returncode) for process in processes]
    assert [code for _, _, code in outcomes] == [0, 0]
    assert outcomes[0][0] == outcomes[1][0]
    assert sorted(b"making the demo voice" in stderr for _, stderr, _ in outcomes) == [False, True]
    return folder


def test_two_processes_make_one_demo_and_leave_nothing_else(cache: Path) -> None:
    [bundle] = (cache / "demo").iterdir()
    assert sorted(path.stem for path in open_bundle(bundle).speakers_folder.iterdir()) == [
        "hibari-heart-1",
        "hibari-heart-2",
        "hibari-heart-3",
        "hibari-high-1",
        "hibari-low-1",
    ]


def test_hello_is_a_playable_wav(cache: Path, tmp_path: Path) -> None:
    outcome = run("synth", "Hello", "--output", tmp_path / "hello.wav")
    assert outcome.code == 0
    with wave.open(str(tmp_path / "hello.wav")) as file:
        assert file.getframerate() == 24000
        assert file.getnframes() > 2400


def test_a_finished_demo_needs_neither_torch_nor_onnx(cache: Path) -> None:
    outcome = run("info", "--json", program=WITHOUT_TORCH)
    assert json.loads(outcome.stdout)["path"] == str(next((cache / "demo").iterdir()))


def test_without_torch_and_without_a_demo_the_extra_is_named(tmp_path: Path) -> None:
    outcome = run(
        "synth", "Hi", "--output", "-",
        program=WITHOUT_TORCH,
        variables={"COSYVOICE_CPU_CACHE": str(tmp_path)},
    )  # fmt: skip
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[1:] == [
        "error: the demo voice has to be made first, and exporting needs onnx",
        'hint:  pip install "cosyvoice-cpu[export]", or give a finished bundle with --bundle',
    ]
    assert list((tmp_path / "demo").iterdir()) == []


@pytest.fixture
def copied_when_made(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Making takes a copy of another bundle; the result counts how often that happened."""
    count = 0

    def make(bundle: Path, progress: embedded.Progress) -> None:
        nonlocal count
        count += 1
        shutil.copytree(tiny_bundle, bundle)

    monkeypatch.setattr(embedded, "_make", make)
    return lambda: count


def test_a_damaged_demo_is_made_again(
    copied_when_made: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path))
    bundle = embedded.demo_bundle()
    assert embedded.demo_bundle() == bundle
    assert copied_when_made() == 1
    (bundle / "vocoder" / "weights.safetensors").write_bytes(b"damaged")
    assert embedded.demo_bundle() == bundle
    assert copied_when_made() == 2
    open_bundle(bundle)


def test_a_demo_of_other_weights_gets_another_name(
    copied_when_made: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path))
    bundle = embedded.demo_bundle()
    monkeypatch.setattr(embedded, "PROMPTS", tmp_path / "none")
    assert embedded.demo_bundle() != bundle
    assert copied_when_made() == 2


def test_without_a_writable_cache_the_demo_goes_to_a_folder_of_this_user_s_own(
    copied_when_made: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: list[str] = []
    bundle = embedded.demo_bundle(notify=said.append)
    assert bundle.parent.parent == tmp_path
    assert bundle.parent.stat().st_mode & 0o077 == 0
    assert said[0] == f"the cache folder can't be written; the demo voice goes to {bundle.parent}"
    assert embedded.demo_bundle() == bundle
    assert copied_when_made() == 1


def test_a_temporary_folder_that_others_may_write_to_is_not_used(
    copied_when_made: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    taken = tmp_path / f"cosyvoice-cpu-{os.getuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    bundle = embedded.demo_bundle()
    assert bundle.parent != taken
    assert embedded.demo_bundle() == bundle
    assert copied_when_made() == 1


def test_a_user_without_a_home_folder_has_the_demo_made_once(
    copied_when_made: Callable[[], int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_entry(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("COSYVOICE_CPU_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    bundle = embedded.demo_bundle()
    assert bundle.parent.parent == tmp_path
    assert embedded.demo_bundle() == bundle
    assert copied_when_made() == 1


def test_the_embedded_checkpoint_is_official_in_layout_and_small() -> None:
    checkpoint = open_checkpoint(embedded.VOICE)
    assert checkpoint.generation.name == "cosyvoice3"
    assert sum(checkpoint.path(file).stat().st_size for file in checkpoint.files) < LARGEST_FILE


def test_every_prompt_clip_has_its_words_and_its_origin() -> None:
    clips = sorted(embedded.PROMPTS.glob("*.flac"))
    origin = (embedded.PROMPTS / "ORIGIN.md").read_text(encoding="utf-8")
    words = dict(re.findall(r"^- `(.+)`: (.+)$", origin, re.MULTILINE))
    assert clips
    assert [clip.name for clip in clips] == sorted(words)
