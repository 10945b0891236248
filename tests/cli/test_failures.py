"""What goes wrong becomes plain lines and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cosyvoice_cpu.cli import app
from cosyvoice_cpu.errors import LONGEST_LINE, CosyVoiceError, library_error


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


@pytest.mark.parametrize(
    "text",
    [
        "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 8000000000000 bytes. Error code 12 (Cannot allocate memory)",
        "std::bad_alloc",
        "Failed to allocate memory for requested buffer of size 1099511627776",
    ],
)
def test_memory_that_a_librarys_allocator_lacks_is_said_plainly(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    _break(monkeypatch, RuntimeError(text))
    result = CliRunner().invoke(app, ["info", "voice"])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: out of memory\n")


def test_a_broken_library_is_no_internal_error_and_no_missing_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broken = ImportError("libcudart.so.12: cannot open shared object file", path="/opt/torch/_C.so")
    _break(monkeypatch, broken)
    result = CliRunner().invoke(app, ["info", "voice"])
    assert result.exit_code == 1
    assert result.stderr == (
        "error: a library can't be loaded: libcudart.so.12: cannot open shared object file\n"
        "hint:  it is installed but broken or of another version; install it again\n"
    )
    assert "pip install" not in library_error(broken, "exporting needs torch").hint
    missing = ModuleNotFoundError("No module named 'torch'", name="torch")
    assert "[export]" in library_error(missing, "exporting needs torch").hint


def test_lines_are_bounded_whatever_a_file_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    _break(monkeypatch, CosyVoiceError(f"first {'x' * 5_000_000} last", "y" * 5_000_000))
    result = CliRunner().invoke(app, ["info", "voice"])
    fact, hint = result.stderr.splitlines()
    assert len(fact) < LONGEST_LINE + 20 and len(hint) < LONGEST_LINE + 20
    assert fact.startswith("error: first x") and fact.endswith("x last")
    short = CosyVoiceError("z" * LONGEST_LINE, "")
    assert short.what == str(short) == "z" * LONGEST_LINE


@pytest.mark.parametrize(
    ("arguments", "fact", "hint"),
    [
        (["nope"], "No such command 'nope'", "`cosyvoice-cpu --help` lists"),
        (["--nope"], "No such option: --nope", "what begins with - and is no option goes"),
        (["synth", "-5 degrees"], "No such option: -5", "what begins with - and is no option goes"),
        (["synth", "a", "--threads", "x"], "Invalid value for '--threads'", "`cosyvoice-cpu synth"),
        (["verify"], "Missing argument", "`cosyvoice-cpu verify --help` lists what it takes"),
        (["info", "a", "b"], "Got unexpected extra argument", "`cosyvoice-cpu info --help` lists"),
    ],
)
def test_wrong_usage_is_two_lines_like_any_other_failure(
    arguments: list[str], fact: str, hint: str
) -> None:
    result = CliRunner().invoke(app, arguments, prog_name="cosyvoice-cpu")
    assert result.exit_code == 2
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith(f"error: {fact}")
    assert second.startswith(f"hint:  {hint}")


def test_no_arguments_show_the_help() -> None:
    result = CliRunner().invoke(app, [])
    assert "Usage: " in result.output
    assert "error:" not in result.output
