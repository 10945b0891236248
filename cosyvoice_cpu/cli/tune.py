"""`cosyvoice-cpu tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption


def tune(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to try with.")],
    repeat: Annotated[int, typer.Option(metavar="N", help="Runs of each number.", min=1)] = 3,
    json: JsonOption = False,
) -> None:
    """Find the fastest number of threads and the fastest engines on this machine.

    The engines are kept in the cache and taken by all commands that get no --engine.

    Example: cosyvoice-cpu tune voice/
    """
    from cosyvoice_cpu.bundle.reader import open_bundle
    from cosyvoice_cpu.cli.messages import note, print_json
    from cosyvoice_cpu.evaluation.bench.tune import thread_candidates, tune_threads
    from cosyvoice_cpu.evaluation.bench.tune_engines import tune_engines
    from cosyvoice_cpu.evaluation.engine_choice import (
        ONNX_RUNTIME,
        installed_engines,
        remember_fastest,
    )
    from cosyvoice_cpu.system.threads import THREADS_VARIABLE, default_threads, usable_cpus

    default = default_threads()
    numbers = thread_candidates(len(usable_cpus()), default)
    result = tune_threads(bundle, numbers, repeat=repeat, notify=note)
    opened = open_bundle(bundle)
    times = tune_engines(opened, installed_engines(), result.best, repeat=repeat, notify=note)
    fastest = {found.component: found.fastest for found in times}
    kept = remember_fastest(opened, fastest)
    if json:
        print_json(
            {
                "engines": {found.component: found.seconds for found in times},
                "fastest": fastest,
                "kept": str(kept) if kept else None,
                "best": result.best,
                "default": default,
                "variable": THREADS_VARIABLE,
                "candidates": [
                    {
                        "threads": candidate.threads,
                        "seconds": candidate.seconds.median,
                        "min": candidate.seconds.low,
                        "max": candidate.seconds.high,
                    }
                    for candidate in result.candidates
                ],
            }
        )
        return
    typer.echo("threads   seconds for 4 s of speech, median (fastest to slowest)")
    for candidate in result.candidates:
        time = candidate.seconds
        mark = "  best" if candidate.threads == result.best else ""
        typer.echo(
            f"{candidate.threads:>7}   {time.median:.2f} ({time.low:.2f} to {time.high:.2f}){mark}"
        )
    if result.best == default:
        typer.echo(f"The default, {default}, is best here: nothing to set.")
    else:
        typer.echo(f"To use it: export {THREADS_VARIABLE}={result.best} (the default is {default})")
    for found in times:
        names = [name for name in found.seconds if name != ONNX_RUNTIME]
        words = [f"{name} {found.speedup(name):.1f} times as fast" for name in names]
        compared = ", ".join(words) or "no other engine is installed"
        typer.echo(f"{found.component}: {compared}; taken: {found.fastest}")
    if not kept:
        typer.echo("There is no cache to keep this in; say --engine, or set COSYVOICE_CPU_ENGINE.")
