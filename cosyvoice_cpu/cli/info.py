"""`cosyvoice-cpu info`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption, SpeakersOption, TrustOption


def info(
    bundle: Annotated[
        Path | None,
        typer.Argument(
            metavar="BUNDLE",
            envvar="COSYVOICE_CPU_BUNDLE",
            help="The bundle; by default the embedded demo, which is made if absent.",
        ),
    ] = None,
    speakers: SpeakersOption = None,
    as_json: JsonOption = False,
    trust: TrustOption = False,
) -> None:
    """Say what is in a bundle. Example: cosyvoice-cpu info voice/"""
    import msgspec

    from cosyvoice_cpu.bundle.reader import open_bundle
    from cosyvoice_cpu.cli.sizes import component_table, megabytes

    opened = open_bundle(bundle, trust=trust)
    manifest = opened.manifest
    total = sum(path.stat().st_size for path in opened.path.rglob("*") if path.is_file())
    if as_json:
        content = msgspec.to_builtins(manifest)
        typer.echo(json.dumps({**content, "path": str(opened.path), "bytes": total}, indent=2))
        return
    typer.echo(f"{opened.path}: {manifest.generation}, {megabytes(total)}")
    typer.echo(f"made by {manifest.created_by} from {manifest.source.name}")
    for line in component_table(manifest):
        typer.echo(line)
