"""Writes the command-line reference from the help texts.

python -m tools.write_cli_reference > docs/cli.md
"""

from __future__ import annotations

import re

import typer.main
from typer.testing import CliRunner

from cosyvoice_cpu.cli import app
from cosyvoice_cpu.cli.options import ENVIRONMENT_PREFIX
from cosyvoice_cpu.runtime.onnxruntime_engine import PREPACK_VARIABLE
from cosyvoice_cpu.runtime.prepacked_graphs import MOST_VARIABLE
from cosyvoice_cpu.system.cache_folder import CACHE_VARIABLE

_INTRODUCTION = """# Command-line reference

Made from the help texts by `python -m tools.write_cli_reference > docs/cli.md`; a test compares.

Results go to stdout, progress and messages to stderr; `--json` prints one JSON object on stdout.
Every option has an environment variable, named beside it: `COSYVOICE_CPU_<COMMAND>_<OPTION>`,
without the command where an option means the same in all (`COSYVOICE_CPU_THREADS`, `_BUNDLE`,
`_SPEAKERS`); [the table of all](#environment-variables) is at the end. `NO_COLOR` is respected.

`rtf` and `seconds_total` of `synth --json` are the time of the whole call that speaks, from text to
samples, the opening of the graphs included; loading the program and checking the bundle are not.
"""


_VARIABLE = re.compile(r"\[env var: ([A-Z_0-9]+)")
_OF_NO_OPTION = (
    "| variable | commands | meaning |",
    "|---|---|---|",
    f"| `{CACHE_VARIABLE}` | all | The cache folder; by default the platform's. |",
    f"| `{PREPACK_VARIABLE}` | all | 1 keeps repacked copies of float weights in memory. |",
    f"| `{MOST_VARIABLE}` | all | Gigabytes that repacked integer weights may take in the cache"
    " folder; 5 by default, 0 keeps none there. |",
)


def reference() -> str:
    """The whole of `docs/cli.md`."""
    parts = [_INTRODUCTION, _section("cosyvoice-cpu", [])]
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        parts.append(_section(f"cosyvoice-cpu {name}", [name]))
    return "\n".join([*parts, _environment()])


def _environment() -> str:
    """The table of variables, those of no option first."""
    commands: dict[str, list[str]] = {}
    texts: dict[str, str] = {}
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        context = command.make_context(
            name,
            [],
            resilient_parsing=True,
            auto_envvar_prefix=f"{ENVIRONMENT_PREFIX}_{name.upper().replace('-', '_')}",
        )
        for option in command.params:
            record = option.get_help_record(context)
            found = _VARIABLE.search(record[1]) if record else None
            if record and found:
                commands.setdefault(found[1], []).append(name)
                texts[found[1]] = record[1][: found.start()].strip().replace("|", "\\|")
    rows = [
        f"| `{variable}` | {', '.join(commands[variable])} | {texts[variable]} |"
        for variable in sorted(commands)
    ]
    return "\n".join(["## Environment variables\n", *_OF_NO_OPTION, *rows]) + "\n"


def _section(title: str, command: list[str]) -> str:
    help_text = CliRunner().invoke(
        app, [*command, "--help"], prog_name="cosyvoice-cpu", env={"COLUMNS": "100"}
    )
    lines = (line.rstrip() for line in help_text.stdout.strip().splitlines())
    return f"## {title}\n\n```\n" + "\n".join(lines) + "\n```\n"


if __name__ == "__main__":
    print(reference(), end="")
