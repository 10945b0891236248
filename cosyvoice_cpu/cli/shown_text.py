"""What `synth --show-text` prints: a text as the model would get it."""

from __future__ import annotations

from collections.abc import Iterator

import typer

from cosyvoice_cpu.cli.messages import print_json, warn
from cosyvoice_cpu.frontend.reading import Note, Pause
from cosyvoice_cpu.frontend.ssml import pause_mark


def print_text(items: Iterator[str | Pause | Note], *, as_json: bool) -> None:
    """A line for each piece and pause on stdout, notes as warnings on stderr; or all as JSON."""
    pieces: list[str] = []
    warnings: list[str] = []
    for item in items:
        if isinstance(item, Note):
            warnings.append(item.text)
            if not as_json:
                warn(item.text)
            continue
        pieces.append(item if isinstance(item, str) else pause_mark(item.seconds))
        if not as_json:
            typer.echo(pieces[-1])
    if as_json:
        print_json({"pieces": pieces, "warnings": warnings})
