"""What all commands have in common: version, help, options and variables, the reference in docs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from support.command_line import PROGRAM, run
from support.places import DOCS

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


def test_the_module_runs_as_the_program(tiny_bundle: Path) -> None:
    done = subprocess.run(
        [*PROGRAM, "info", tiny_bundle, "--json"], capture_output=True, check=True
    )
    assert json.loads(done.stdout)["generation"] == "cosyvoice3"
