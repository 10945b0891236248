"""Runs the command as users do, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from cosyvoice_cpu.cli import app
from support.places import CALIBRATION

CLIPS = CALIBRATION / "audio"
CLIP = CLIPS / "librivox-austen-0890.flac"  # 5.3 s
TRANSCRIPT = "unless to be rather cold hearted and rather selfish is to be ill-disposed."

PROGRAM = (sys.executable, "-m", "cosyvoice_cpu")
WITHOUT_TORCH = (
    sys.executable,
    "-c",
    "import sys\n"
    "class Refuse:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.partition('.')[0] in {'torch', 'onnx', 'onnxconverter_common'}:\n"
    "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
    "sys.meta_path.insert(0, Refuse())\n"
    "from cosyvoice_cpu.cli import main\n"
    "main()\n",
)
NUMERIC_USER = (  # as in a container that runs under a bare number; HOME is the caller's business
    sys.executable,
    "-c",
    "import pwd\n"
    "def no_entry(uid):\n"
    "    raise KeyError(f'getpwuid(): uid not found: {uid}')\n"
    "pwd.getpwuid = no_entry\n"
    "from cosyvoice_cpu.cli import main\n"
    "main()\n",
)


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and both streams."""

    code: int
    stdout: str
    stderr: str


def run(
    *arguments: str | Path,
    program: tuple[str, ...] = PROGRAM,
    stdin: bytes | None = None,
    variables: dict[str, str] | None = None,
) -> Outcome:
    """Run `cosyvoice-cpu` with `arguments`."""
    done = subprocess.run(
        [*program, *arguments],
        input=b"" if stdin is None else stdin,
        capture_output=True,
        timeout=300,
        check=False,
        env={**os.environ, **(variables or {})},
    )
    return Outcome(done.returncode, done.stdout.decode("latin-1"), done.stderr.decode())


def call(*arguments: str | Path) -> Outcome:
    """The same within this process: quicker, for requests that end before any work."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return Outcome(result.exit_code, result.stdout, result.stderr)


def lines(error: str, hint: str) -> str:
    """stderr of an expected failure."""
    return f"error: {error}\nhint:  {hint}\n"
