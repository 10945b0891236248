"""`cosyvoice-cpu profile`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cosyvoice_cpu.evaluation.bench.kernel_kinds import Kind
    from cosyvoice_cpu.evaluation.bench.profile import GraphTime


def profile(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to look into.")],
    seconds: Annotated[float, typer.Option(metavar="S", help="Audio to make.")] = 10.0,
    prompt_seconds: Annotated[float, typer.Option(metavar="S", help="Speaker's clip.")] = 5.0,
    operators: Annotated[
        int, typer.Option(metavar="N", help="Operators to name per stage.", min=1)
    ] = 6,
    json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Show where the time of a request goes, per stage, kind of work and operator.

    Example: cosyvoice-cpu profile voice/
    """
    from cosyvoice_cpu.cli.messages import print_json
    from cosyvoice_cpu.evaluation.bench.profile import as_json, profile_bundle
    from cosyvoice_cpu.evaluation.bench.workload import Workload
    from cosyvoice_cpu.system.threads import resolve_threads

    workload, count = Workload(seconds, prompt_seconds), resolve_threads(threads)
    times = profile_bundle(bundle, workload, count)
    if json:
        print_json({"threads": count, "workload": workload.as_json(), "stages": as_json(times)})
        return
    _print_table(times, operators)


def _print_table(times: list[GraphTime], operators: int) -> None:
    from cosyvoice_cpu.evaluation.bench.profile import kinds_of_request

    total = sum(time.seconds_per_request for time in times)
    typer.echo(f"{'stage':<44}{'calls':>6}{'s/call':>10}{'s/request':>11}{'share':>7}")
    for time in times:
        typer.echo(
            f"{time.stage:<44}{time.calls:>6g}{time.seconds:>10.4f}"
            f"{time.seconds_per_request:>11.3f}{time.seconds_per_request / total:>7.1%}"
        )
        typer.echo(f"  {_in_words(time.kinds)}")
        for part in time.operators[:operators]:
            name = f"  {part.operator} ({part.nodes} nodes)"
            seconds = time.calls * part.seconds
            typer.echo(
                f"{name:<44}{'':>6}{part.seconds:>10.4f}{seconds:>11.3f}{seconds / total:>7.1%}"
            )
    typer.echo(f"{'all kernels':<44}{'':>16}{total:>11.3f}")
    typer.echo(f"  {_in_words(kinds_of_request(times))}")


def _in_words(kinds: Mapping[Kind, float]) -> str:
    return ", ".join(f"{kind} {share:.0%}" for kind, share in kinds.items())
