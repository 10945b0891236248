"""Options that several commands share, and the environment variables of all.

Every option can be set by `COSYVOICE_CPU_<COMMAND>_<OPTION>`, as in COSYVOICE_CPU_SYNTH_SEED; Typer
derives those names. The options below mean the same in every command, so their variables have no
command: COSYVOICE_CPU_THREADS, COSYVOICE_CPU_ENGINE, COSYVOICE_CPU_BUNDLE, COSYVOICE_CPU_SPEAKERS.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ENVIRONMENT_PREFIX = "COSYVOICE_CPU"

ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        metavar="N",
        envvar="COSYVOICE_CPU_THREADS",
        help="Threads to compute with; by default the physical cores.",
    ),
]
SpeakersOption = Annotated[
    Path | None,
    typer.Option(
        "--speakers",
        metavar="DIR",
        envvar="COSYVOICE_CPU_SPEAKERS",
        help="Folder of speaker files, which comes before the bundle's own.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Don't compare the bundle's files with their digests.")
]

EngineOption = Annotated[
    str | None,
    typer.Option(
        "--engine",
        metavar="NAME",
        envvar="COSYVOICE_CPU_ENGINE",
        help="Computes flow and vocoder: onnxruntime, openvino, openvino-bf16; by default what"
        " `tune` found, or what the bundle says.",
    ),
]
StreamWorkersOption = Annotated[
    int | None,
    typer.Option(
        "--stream-workers",
        metavar="N",
        help="Threads that share the stages of a stream, 0 to 3; by default 1.",
    ),
]
