"""What holds for every command: help, variables, streams, exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from support.command_line import CLIP, PROGRAM, run
from support.places import DOCS
from typer.testing import CliRunner

import cosyvoice_cpu
from cosyvoice_cpu.cli import app
from tools.write_cli_reference import reference

COMMANDS = list(typer.main.get_command(app).commands)


def test_version_names_the_program_and_its_version() -> None:
    assert run("--version").stdout == f"cosyvoice-cpu {cosyvoice_cpu.__version__}\n"


def test_help_imports_neither_numpy_nor_an_engine() -> None:
    program = (
        "import sys\nfrom cosyvoice_cpu.cli import main\n"
        "try:\n    main()\n"
        "finally:\n    print(sorted({'numpy', 'onnxruntime', 'torch', 'onnx'} & set(sys.modules)))"
    )
    for command in COMMANDS:
        outcome = run(command, "--help", program=(sys.executable, "-c", program))
        assert outcome.stdout.splitlines()[-1] == "[]", command


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_a_variable_that_starts_with_the_program_s_name(command: str) -> None:
    for option in typer.main.get_command(app).commands[command].params:
        if option.param_type_name == "option":
            assert option.allow_from_autoenv
            assert not option.envvar or option.envvar.startswith("COSYVOICE_CPU_")


def test_the_reference_in_docs_is_up_to_date() -> None:
    path = DOCS / "cli.md"
    assert path.read_text(encoding="utf-8") == reference(), (
        "run: python -m tools.write_cli_reference > docs/cli.md"
    )


def test_an_unknown_option_is_wrong_usage() -> None:
    outcome = run("info", "--colour")
    assert outcome.code == 2
    assert "No such option: --colour" in outcome.stderr
    assert outcome.stdout == ""


def test_a_variable_that_is_no_number_is_wrong_usage() -> None:
    outcome = run("synth", "Hi", "--output", "x.wav", variables={"COSYVOICE_CPU_THREADS": "many"})
    assert outcome.code == 2
    assert "COSYVOICE_CPU_THREADS" in outcome.stderr


def test_no_colour_reaches_a_pipe(tiny_bundle: Path) -> None:
    outcome = run("info", tiny_bundle, variables={"FORCE_COLOR": "", "TERM": "xterm-256color"})
    assert "\x1b" not in outcome.stdout + outcome.stderr


def test_a_name_with_a_line_end_stays_on_one_line() -> None:
    outcome = run("info", "no\nsuch\x1b[31m")
    assert outcome.code == 1
    assert outcome.stderr.splitlines()[0] == r"error: there is no bundle no\nsuch\x1b[31m"


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


def test_a_name_that_the_terminal_can_t_show_is_escaped(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "声"
    bundle.symlink_to(tiny_bundle)
    outcome = run("export", bundle, "--output", tmp_path / "x")
    assert outcome.stderr.startswith(f"error: {bundle} holds none of ")
    speaker = ("cache-speaker", bundle, "声音", "--audio", CLIP, "--speakers", tmp_path / "mine")
    outcome = run(*speaker, variables={"PYTHONIOENCODING": "latin-1"})
    assert outcome.code == 0
    assert r"\u58f0\u97f3.safetensors: 5.3 s" in outcome.stdout


def test_the_module_runs_as_the_program(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "info", tiny_bundle, "--json"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["generation"] == "cosyvoice3"
