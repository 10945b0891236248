"""Writes the command-line reference from the help texts.

python -m tools.write_cli_reference > docs/cli.md
"""

from __future__ import annotations

import typer.main
from typer.testing import CliRunner

from cosyvoice_cpu.cli import app

_INTRODUCTION = """# Command-line reference

Made from the help texts by `python -m tools.write_cli_reference > docs/cli.md`; a test compares.

Results go to stdout, progress and messages to stderr; `--json` prints one JSON object on stdout.
Every option has an environment variable, named beside it: `COSYVOICE_CPU_<COMMAND>_<OPTION>`,
without the command where an option means the same in all (`COSYVOICE_CPU_THREADS`, `_BUNDLE`,
`_SPEAKERS`). `COSYVOICE_CPU_CACHE` moves the cache folder; `NO_COLOR` is respected.

`rtf` and `seconds_total` of `synth --json` are the time of the whole call that speaks, from text to
samples, the opening of the graphs included; loading the program and checking the bundle are not.
"""


def reference() -> str:
    """The whole of `docs/cli.md`."""
    parts = [_INTRODUCTION, _section("cosyvoice-cpu", [])]
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        parts.append(_section(f"cosyvoice-cpu {name}", [name]))
    return "\n".join(parts)


def _section(title: str, command: list[str]) -> str:
    help_text = CliRunner().invoke(
        app, [*command, "--help"], prog_name="cosyvoice-cpu", env={"COLUMNS": "100"}
    )
    lines = (line.rstrip() for line in help_text.stdout.strip().splitlines())
    return f"## {title}\n\n```\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    print(reference(), end="")
