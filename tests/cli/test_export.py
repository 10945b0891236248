"""The command `export`."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.command_line import PROGRAM, WITHOUT_TORCH, lines, run


def test_export_prints_sizes_and_parity_and_makes_the_bundle(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "voice"
    outcome = run("export", tiny_checkpoint, "--output", bundle, "--max-seconds", "4")
    assert (outcome.code, outcome.stderr) == (0, "")
    for word in ("speech_lm", "flow_estimator", "text_tokenizer", "MB", "waveform"):
        assert word in outcome.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["voice"]
    assert run("info", bundle).code == 0


def test_export_refuses_an_existing_bundle_without_overwrite(
    tiny_checkpoint: Path, tiny_bundle: Path
) -> None:
    outcome = run("export", tiny_checkpoint, "--output", tiny_bundle)
    assert outcome.code == 1
    assert outcome.stderr == lines(f"{tiny_bundle} exists", "give another name, or --overwrite")


def test_export_names_every_missing_file_of_a_checkpoint(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    for name in ("flow.pt", "campplus.onnx"):
        (folder / name).unlink()
    outcome = run("export", folder, "--output", tmp_path / "voice")
    assert outcome.code == 1
    assert outcome.stderr == lines(
        f"{folder} is incomplete: missing: flow.pt, campplus.onnx",
        "download the model again, whole",
    )


def test_export_names_a_truncated_file_and_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, folder)
    content = (folder / "llm.pt").read_bytes()
    (folder / "llm.pt").write_bytes(content[: len(content) // 2])
    outcome = run("export", folder, "--output", tmp_path / "voice")
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {folder / 'llm.pt'} is ")
    assert len(outcome.stderr.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("--shapes", "round"), "round"),
        (("--storage", "int4"), "int4"),
        (("--max-seconds", "0"), "--max-seconds"),
        (("--max-seconds", "nan"), "--max-seconds"),
        (("--threads", "0"), "0 threads"),
    ],
)
def test_export_refuses_a_value_out_of_range(
    tiny_checkpoint: Path, tmp_path: Path, arguments: tuple[str, str], word: str
) -> None:
    outcome = run("export", tiny_checkpoint, "--output", tmp_path / "voice", *arguments)
    assert outcome.code == 2
    assert word in outcome.stderr
    assert list(tmp_path.iterdir()) == []


def test_export_without_torch_names_the_extra(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("export", tiny_checkpoint, "--output", tmp_path / "voice")
    outcome = run(*arguments, program=WITHOUT_TORCH)
    assert outcome.code == 1
    assert 'pip install "cosyvoice-cpu[export]"' in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_export_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = subprocess.Popen(
        [*PROGRAM, "export", tiny_checkpoint, "--output", tmp_path / "voice"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(".voice.partial-*/flow_encoder/*")):
        assert command.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    command.send_signal(number)
    stdout, stderr = command.communicate(timeout=60)
    assert (command.returncode, stdout, stderr) == (130, b"", b"interrupted\n")
    assert list(tmp_path.iterdir()) == []
