"""`cosyvoice-cpu info`."""

from __future__ import annotations

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
            help="The bundle; by default the embedded demo.",
        ),
    ] = None,
    speakers: SpeakersOption = None,
    json: JsonOption = False,
    trust: TrustOption = False,
) -> None:
    """Say what is in a bundle. Example: cosyvoice-cpu info voice/"""
    import msgspec

    from cosyvoice_cpu.bundle.reader import open_bundle
    from cosyvoice_cpu.cli.bundles import chosen_bundle, speaker_folders
    from cosyvoice_cpu.cli.messages import print_json
    from cosyvoice_cpu.cli.sizes import component_table, megabytes
    from cosyvoice_cpu.frontend.speaker_folders import list_speakers

    opened = open_bundle(chosen_bundle(bundle), trust=trust)
    manifest = opened.manifest
    total = sum(path.stat().st_size for path in opened.path.rglob("*") if path.is_file())
    if json:
        print_json({**msgspec.to_builtins(manifest), "path": str(opened.path), "bytes": total})
        return
    typer.echo(f"{opened.path}: {manifest.generation}, {megabytes(total)}")
    typer.echo(f"made by {manifest.created_by} from {manifest.source.name}")
    for line in component_table(manifest):
        typer.echo(line)
    names = ", ".join(list_speakers(speaker_folders(opened, speakers)))
    typer.echo(f"speakers: {names or 'none yet, see cosyvoice-cpu cache-speaker --help'}")
