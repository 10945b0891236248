"""`cosyvoice-cpu verify`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption, SpeakersOption, ThreadsOption

if TYPE_CHECKING:
    from cosyvoice_cpu.evaluation.parity.verify import Check, Verification


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
    quality: Annotated[
        bool,
        typer.Option("--quality", help="Let it speak fixed sentences and measure how well."),
    ] = False,
    items: Annotated[
        int | None,
        typer.Option(metavar="N", help="Sentences of --quality, 1 to 76; by default 20."),
    ] = None,
    draws: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Seeds per sentence of --quality; by default 1."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Judge with --quality what `synth --preset` gives."),
    ] = None,
    streaming: Annotated[
        bool,
        typer.Option("--streaming", help="Judge with --quality what `synth --stream` gives."),
    ] = False,
    engine: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Judge with --quality what this engine gives."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(metavar="PREFIX", help="Write --quality's PREFIX.md, .csv and .json."),
    ] = None,
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write --quality's spectrograms, side by side, as PNG."),
    ] = None,
    speakers: SpeakersOption = None,
    json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Check a bundle's files, graphs and speakers, and what it computes. Exit code 1: it failed.

    Example: cosyvoice-cpu verify voice/ --checkpoint Fun-CosyVoice3-0.5B/

    Example: cosyvoice-cpu verify voice-int8/ --quality --against voice/ --output table
    """
    import msgspec

    from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
    from cosyvoice_cpu.cli.messages import print_json, progress_bar
    from cosyvoice_cpu.cli.quality import (
        describe_missed,
        print_quality,
        require_quality,
        write_quality,
    )
    from cosyvoice_cpu.errors import BundleError
    from cosyvoice_cpu.evaluation.parity.verify import verify_bundle
    from cosyvoice_cpu.evaluation.quality.checking import DEFAULT_ITEMS, check_quality
    from cosyvoice_cpu.evaluation.quality.formats import to_json
    from cosyvoice_cpu.system.threads import resolve_threads

    given = {
        "--items": items,
        "--draws": draws,
        "--preset": preset,
        "--streaming": streaming or None,
        "--output": output,
        "--pictures": pictures,
        "--engine": engine,
    }
    require_quality(quality, *given.items())
    report = None
    with progress_bar() as progress:
        result = verify_bundle(
            bundle,
            checkpoint=checkpoint,
            against=against,
            speakers=speakers,
            threads=resolve_threads(threads),
            progress=progress,
        )
        if quality and not {"digests", "graphs"} & set(result.failed_levels):
            report = check_quality(
                bundle,
                checkpoint=checkpoint,
                against=against,
                items=DEFAULT_ITEMS if items is None else items,
                draws=1 if draws is None else draws,
                streaming=streaming,
                engine=engine,
                preset=DEFAULT_PRESET if preset is None else preset,
                speakers=speakers,
                threads=resolve_threads(threads),
                pictures=pictures,
                progress=progress,
            )
    passed = result.passed and (report is None or report.passed)
    if report and output:
        write_quality(report, output)
    if json:
        table = {"quality": to_json(report.table, report.decisions)} if report else {}
        print_json({**msgspec.to_builtins(result), **table, "passed": passed})
    else:
        _print(result)
        if report:
            print_quality(report)
    if not result.passed:
        failed = [check for check in result.checks if not check.passed]
        raise BundleError(
            f"{bundle} failed {len(failed)} of {len(result.checks)} checks, "
            f"at the level {', '.join(result.failed_levels)}",
            "make it again with `cosyvoice-cpu export`, or cache the speakers again",
        )
    if report and not report.passed:
        raise BundleError(
            f"{bundle} misses {len(report.missed)} of {len(report.decisions)} quality thresholds: "
            + ", ".join(describe_missed(decision) for decision in report.missed),
            "docs/quality.md says what each measure means; make the bundle again",
        )


def _print(result: Verification) -> None:
    for check in result.checks:
        mark = "ok" if check.passed else "FAILED"
        typer.echo(f"  {check.level:<9}{check.name:<28}{mark:<8}{_numbers(check)}".rstrip())
    if result.passed:
        compared = f", compared with {result.against}" if result.against else ""
        typer.echo(f"{result.bundle}: all {len(result.checks)} checks passed{compared}")


def _numbers(check: Check) -> str:
    from cosyvoice_cpu.errors import one_line

    if check.value is None or check.limit is None:
        return one_line(check.detail)
    sign = ">=" if check.bound == "at_least" else "<="
    return f"{check.measure} {check.value:.3g} ({sign} {check.limit:g})"
