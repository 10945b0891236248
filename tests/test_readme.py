"""What the README promises is what happens."""

from __future__ import annotations

import re
import shlex
import shutil
import wave
from pathlib import Path

import pytest
import soundfile
import typer.main
from support.command_line import CLIP, run

from cosyvoice_cpu.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
         for line in block.splitlines()]  # fmt: skip
SETUP = [line for line in SHELL if line.startswith("pip install")]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_there_are_two_set_up_commands_one_speaks_and_one_tests() -> None:
    assert len(SETUP) == 2
    assert "&& cosyvoice-cpu synth" in SETUP[0]
    assert SETUP[1].endswith("&& pytest")


def test_the_first_command_ends_with_a_playable_wav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program, *arguments = shlex.split(SETUP[0].partition("&&")[2])
    assert program == "cosyvoice-cpu"
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.stderr
    with wave.open("hello.wav") as file:
        assert (file.getframerate(), file.getsampwidth()) == (24000, 2)
        assert file.getnframes() > 2400


def test_the_sample_is_what_the_command_beside_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In length: other machines round otherwise."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    program, *arguments = next(shlex.split(line) for line in SHELL if "sample" in line)
    assert program == "cosyvoice-cpu"
    Path("docs").mkdir()
    outcome = run(*arguments)
    assert outcome.code == 0, outcome.stderr
    sample = ROOT / arguments[-1]
    assert sample.stat().st_size <= 300_000
    made, kept = (soundfile.info(root / arguments[-1]).duration for root in (tmp_path, ROOT))
    assert made == pytest.approx(kept, rel=0.1)


def test_the_examples_run_on_a_model_folder(
    tiny_checkpoint: Path, tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    shutil.copy(CLIP, "anna.wav")
    _, *examples = [shlex.split(line) for line in SHELL if line.startswith("cosyvoice-cpu")]
    assert [words[1] for words in examples] == ["export", "cache-speaker", "synth"]
    assert examples[0][3:] == ["--output", "voice/"]
    shutil.copytree(tiny_bundle, "voice")  # what `export` makes; tests/test_cli_export.py runs it
    for _, *arguments in examples[1:]:
        outcome = run(*arguments)
        assert outcome.code == 0, outcome.stderr
    first = Path("morning.wav").read_bytes()
    [code] = PYTHON
    exec(code, {})
    assert Path("morning.wav").read_bytes() == first


def test_the_table_of_commands_is_complete() -> None:
    listed = re.findall(r"^\| `cosyvoice-cpu ([a-z-]+)` \|", README, re.MULTILINE)
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)
