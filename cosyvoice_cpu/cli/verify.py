"""`cosyvoice-cpu verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption, SpeakersOption, ThreadsOption

if TYPE_CHECKING:
    from cosyvoice_cpu.evaluation.verify import Check, Verification


def verify(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle to check.")],
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Compare with the torch networks of this model folder."),
    ] = None,
    against: Annotated[
        Path | None,
        typer.Option(metavar="BUNDLE2", help="Compare with another bundle of the same model."),
    ] = None,
    speakers: SpeakersOption = None,
    json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Check a bundle's files, graphs and speakers, and what it computes. Exit code 1: it failed.

    Example: cosyvoice-cpu verify voice/ --checkpoint Fun-CosyVoice3-0.5B/
    """
    import msgspec

    from cosyvoice_cpu.cli.messages import print_json, progress_bar
    from cosyvoice_cpu.errors import BundleError
    from cosyvoice_cpu.evaluation.verify import verify_bundle
    from cosyvoice_cpu.runtime.threads import resolve_threads

    with progress_bar() as progress:
        result = verify_bundle(
            bundle,
            checkpoint=checkpoint,
            against=against,
            speakers=speakers,
            threads=resolve_threads(threads),
            progress=progress,
        )
    if json:
        print_json({**msgspec.to_builtins(result), "passed": result.passed})
    else:
        _print(result)
    if not result.passed:
        failed = [check for check in result.checks if not check.passed]
        raise BundleError(
            f"{bundle} failed {len(failed)} of {len(result.checks)} checks, "
            f"at the level {', '.join(result.failed_levels)}",
            "make it again with `cosyvoice-cpu export`, or cache the speakers again",
        )


def _print(result: Verification) -> None:
    for check in result.checks:
        mark = "ok" if check.passed else "FAILED"
        typer.echo(f"  {check.level:<9}{check.name:<28}{mark:<8}{_numbers(check)}".rstrip())
    if result.passed:
        compared = f", compared with {result.against}" if result.against else ""
        typer.echo(f"{result.bundle}: all {len(result.checks)} checks passed{compared}")


def _numbers(check: Check) -> str:
    from cosyvoice_cpu.cli.failures import one_line

    if check.value is None or check.limit is None:
        return one_line(check.detail)
    sign = ">=" if check.bound == "at_least" else "<="
    return f"{check.measure} {check.value:.3g} ({sign} {check.limit:g})"
