"""What commands print: results as JSON on stdout, progress and messages on stderr.

There are bars on a terminal and plain lines of text elsewhere.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from cosyvoice_cpu.errors import one_line
from cosyvoice_cpu.progress import Progress, no_progress


def print_json(content: dict[str, Any]) -> None:
    """One JSON object on stdout, in ASCII so that no terminal's encoding matters."""
    typer.echo(json.dumps(content, indent=2))  # which flushes, so a closed pipe shows here


def note(text: str) -> None:
    """A line on stderr that says what was chosen or done on the way."""
    print(one_line(text), file=sys.stderr)


def warn(text: str) -> None:
    """A line on stderr about something that may not be what the user wants."""
    print(f"warning: {one_line(text)}", file=sys.stderr)


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A function to call with (what is under way, share of it that is done, 0..1).

    Shows a bar with the time left if stderr is a terminal, and nothing otherwise.
    """
    if not sys.stderr.isatty():
        yield no_progress
        return
    from rich import progress
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description:<32}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("starting", total=1.0)
        yield lambda what, done: bar.update(task, description=what, completed=done)
