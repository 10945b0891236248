"""Runs commands in this process and holds their refusals to the rules that users are promised."""

from __future__ import annotations

import time
from pathlib import Path

from typer.testing import CliRunner

from cosyvoice_cpu.cli import app

_LONGEST_WAIT = 60.0  # seconds, on a machine that is busy with other work


def refused(
    *arguments: str | Path,
    code: int = 1,
    stdin: bytes = b"",
    variables: dict[str, str] | None = None,
) -> str:
    """The fact that the command is refused with, after a look at everything else it does.

    stderr has one `error:` line and at most one `hint:` line, both last, beside notes on what was
    chosen; stdout is empty, but for `verify`; the exit code is `code`.
    """
    started = time.monotonic()
    result = CliRunner().invoke(
        app, [str(argument) for argument in arguments], input=stdin, env=variables
    )
    assert time.monotonic() - started < _LONGEST_WAIT
    assert result.exit_code == code, result.stderr
    if arguments[0] != "verify":  # whose result says what failed
        assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert "internal error" not in result.stderr
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    hints = [line for line in lines if line.startswith("hint:  ")]
    assert len(errors) == 1, result.stderr
    assert len(hints) <= 1, result.stderr
    assert lines[-1 - len(hints)] == errors[0]
    return errors[0].removeprefix("error: ")
