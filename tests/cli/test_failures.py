"""What goes wrong becomes plain lines and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cosyvoice_cpu.cli import app


class _Bug(Exception):
    pass


def _break(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*args: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("cosyvoice_cpu.bundle.reader.open_bundle", fail)


def test_a_bug_is_one_line_that_asks_for_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, _Bug("impossible"))
    result = CliRunner().invoke(app, ["info", "voice"])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: internal error, _Bug: impossible\n"
        "hint:  run again with --debug and report the output\n"
    )


@pytest.mark.parametrize("arguments", [["--debug", "info", "voice"], ["info", "voice", "--debug"]])
def test_debug_shows_the_traceback_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    _break(monkeypatch, _Bug("impossible"))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("Traceback")
    assert result.stderr.endswith("error: internal error, _Bug: impossible\n")


def test_an_interrupted_command_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, KeyboardInterrupt())
    result = CliRunner().invoke(app, ["info", "voice"])
    assert (result.exit_code, result.stderr) == (130, "interrupted\n")


def test_exhausted_memory_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, MemoryError())
    result = CliRunner().invoke(app, ["info", "voice"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: out of memory\n")


def test_a_reader_that_leaves_early_brings_no_complaint(tiny_bundle: Path) -> None:
    # More than a pipe holds, so that the write itself fails.
    program = (
        "import cosyvoice_cpu.cli.sizes as sizes\n"
        "sizes.component_table = lambda manifest: ['x' * 99] * 9999\n"
        "from cosyvoice_cpu.cli import main\nmain()\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", program, "info", tiny_bundle],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert command.stdout is not None
    command.stdout.close()
    _, stderr = command.communicate(timeout=60)
    assert stderr == b""
    assert command.returncode == 1
