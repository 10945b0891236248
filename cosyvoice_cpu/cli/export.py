"""`cosyvoice-cpu export`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from cosyvoice_cpu.cli.options import ThreadsOption


class Shapes(str, Enum):
    """Which graphs are made."""

    static = "static"
    dynamic = "dynamic"


class Storage(str, Enum):
    """How weights are stored."""

    float32 = "float32"
    float16 = "float16"


class SpeechLM(str, Enum):
    """Which of the checkpoint's speech LMs is taken."""

    base = "base"
    rl = "rl"


def export(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="Official CosyVoice model folder.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="BUNDLE", help="Folder to make the bundle in.")
    ],
    shapes: Annotated[
        Shapes, typer.Option(help="A ladder of fixed sizes, or one graph for any length.")
    ] = Shapes.static,
    storage: Annotated[
        Storage, typer.Option(help="How weights are stored; they are computed with in float32.")
    ] = Storage.float32,
    max_seconds: Annotated[
        float, typer.Option(metavar="S", help="Longest audio, the speaker's clip included.")
    ] = 60.0,
    speech_lm: Annotated[
        SpeechLM, typer.Option(help="The base speech LM, or the one after reinforcement learning.")
    ] = SpeechLM.base,
    no_front_end: Annotated[
        bool,
        typer.Option(
            "--no-front-end", help="Leave out speaker encoder, speech and text tokenizer."
        ),
    ] = False,
    presets: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Solver presets with their results (JSON), as a distilled flow needs them.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name.")
    ] = False,
    threads: ThreadsOption = None,
) -> None:
    """Make a bundle of an official checkpoint folder.

    Nothing appears unless every graph agrees with PyTorch.

    Example: cosyvoice-cpu export Fun-CosyVoice3-0.5B/ --output voice/
    """
    from cosyvoice_cpu.cli.messages import progress_bar
    from cosyvoice_cpu.cli.sizes import component_bytes, component_table, megabytes
    from cosyvoice_cpu.export.exporter import export_checkpoint
    from cosyvoice_cpu.system.threads import resolve_threads

    with progress_bar() as progress:
        manifest = export_checkpoint(
            checkpoint,
            output,
            shapes=shapes.value,
            storage=storage.value,
            max_seconds=max_seconds,
            speech_lm=speech_lm.value,
            front_end=not no_front_end,
            presets=presets,
            overwrite=overwrite,
            threads=resolve_threads(threads),
            progress=progress,
        )
    total = sum(component_bytes(component) for component in manifest.components.values())
    typer.echo(f"{output}: {manifest.generation}, {megabytes(total)}")
    for line in component_table(manifest):
        typer.echo(line)
    typer.echo("largest difference from PyTorch, relative to the largest value:")
    for name, component in manifest.components.items():
        for measure, error in component.parity.items():
            typer.echo(f"  {name:<18}{measure:<24}{error:.1e}")
