"""`cosyvoice-cpu quantize`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption, ThreadsOption

if TYPE_CHECKING:
    from cosyvoice_cpu.bundle.manifest import QualityResult
    from cosyvoice_cpu.quantization.report import (
        CandidateReport,
        ComponentReport,
        PresetReport,
        QuantizationReport,
    )


def quantize(
    bundle: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A float32 bundle, as `export` makes it.")
    ],
    output: Annotated[
        Path, typer.Option("--output", metavar="BUNDLE2", help="Folder to make the new bundle in.")
    ],
    recipe: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="auto, a recipe's name, or a .toml file; auto keeps what is good and faster here,"
            " fast finds a cheaper way to solve the flow.",
        ),
    ] = "auto",
    component: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this component of the recipe; repeatable."),
    ] = None,
    calibration: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|random",
            help="Text/audio pairs to calibrate and measure on, by default the project's own; "
            "random: random ids, for a bundle without front end.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done, and its size.")
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Write even what the quality gate refuses.")
    ] = False,
    sensitivity: Annotated[
        bool,
        typer.Option(
            "--sensitivity",
            help="Make no bundle, but tables and a plot of what each layer costs by itself.",
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a bundle of that name.")
    ] = False,
    json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Make a bundle small and fast in INT8; it is refused if it differs too much from float32.

    Example: cosyvoice-cpu quantize voice/ --output voice-int8/
    """
    import msgspec

    from cosyvoice_cpu.cli.messages import note, print_json, progress_bar, warn
    from cosyvoice_cpu.quantization import QualityRefusedError, quantize_bundle
    from cosyvoice_cpu.quantization.calibration.pairs import RANDOM
    from cosyvoice_cpu.system.threads import resolve_threads

    data = calibration if calibration in (RANDOM, None) else Path(calibration)
    if sensitivity:
        from cosyvoice_cpu.quantization.search.sensitivity import to_markdown, write_sensitivity

        with progress_bar() as progress:
            rows = write_sensitivity(
                bundle,
                output,
                recipe=recipe,
                components=component or (),
                calibration=data,
                threads=resolve_threads(threads),
                progress=progress,
            )
        if json:
            print_json({"layers": msgspec.to_builtins(rows)})
        else:
            typer.echo(to_markdown(rows), nl=False)
        return
    with progress_bar() as progress:
        try:
            report = quantize_bundle(
                bundle,
                output,
                recipe=recipe,
                components=component or (),
                calibration=data,
                dry_run=dry_run,
                force=force,
                overwrite=overwrite,
                threads=resolve_threads(threads),
                progress=progress,
            )
        except QualityRefusedError as error:
            if json:
                print_json({"written": False, "results": msgspec.to_builtins(error.results)})
            else:
                _print_results(error.results)
            raise
    if report.reused:
        note(f"{report.reused} measurements of an interrupted run were reused")
    for remark in report.notes:
        note(remark)
    if report.forced:
        warn(f"{output} was written although the quality gate refused it (--force)")
    if json:
        print_json(msgspec.to_builtins(report))
        return
    _print_report(report, output)


def _print_report(report: QuantizationReport, output: Path) -> None:
    from cosyvoice_cpu.cli.sizes import megabytes

    share = report.bytes_after / report.bytes_before
    head = str(output) if report.written else "dry run, nothing was written"
    typer.echo(
        f"{head}: recipe {report.recipe}, {megabytes(report.bytes_before)} to "
        f"{megabytes(report.bytes_after)} ({share:.0%})"
    )
    for part in report.components:
        speed = f"  {part.speedup:.2f} times as fast" if part.speedup else ""
        typer.echo(
            f"  {part.name:<16}{part.precision:<26}{megabytes(part.bytes_before):>10} to"
            f" {megabytes(part.bytes_after):>9}{speed}"
        )
        if part.restored:
            typer.echo(f"    stays float32: {part.restored}")
        elif part.float32_layers:
            typer.echo(f"    {part.layers} layers; float32: {', '.join(part.float32_layers)}")
        else:
            typer.echo(f"    {part.layers} layers")
        for candidate in part.candidates:
            _print_candidate(candidate, part, dry=not report.written)
    if report.presets:
        print_presets(report.presets)
    if report.results:
        _print_results(report.results)
    if report.results and report.components:
        typer.echo(
            f"  calibration data: {report.calibration}; measured on {', '.join(report.items)}"
        )
    if not report.written:
        typer.echo(f"  memory: {megabytes(report.memory_bytes)} beside mapped files")


def print_presets(curve: Sequence[PresetReport]) -> None:
    """The curve of quality against cost."""
    typer.echo("  solver: evaluations, rows; mel from default, from exact; what is lost")
    for tried in curve:
        lost = f"MOS {tried.mos_lost[0]:.3f}"
        if tried.word_errors_added and tried.prompt_similarity_lost:
            lost += (
                f", words {tried.word_errors_added[0]:.2%}"
                f", similarity {tried.prompt_similarity_lost[0]:.3f}"
            )
        typer.echo(
            f"    {tried.candidate:<24}{tried.evaluations:>3}{tried.rows:>4}"
            f"  {tried.mel_db_from_default:.2f} dB {tried.mel_db_from_exact:.2f} dB  {lost}"
            f" ({tried.sentences} sentences); {tried.refusal or 'taken'}"
        )


def _print_candidate(candidate: CandidateReport, part: ComponentReport, *, dry: bool) -> None:
    """A line if there was a choice, and what was decided about its layers."""
    from cosyvoice_cpu.cli.sizes import megabytes

    if len(part.candidates) > 1:
        speed = f", {candidate.speedup:.2f} times as fast" if candidate.speedup else ""
        if dry:
            fate = "to be measured"
        elif candidate.refusal:
            fate = f"refused: {candidate.refusal}"
        else:
            fate = "taken" if candidate.recipe == part.recipe else "passes, not taken"
        size = megabytes(candidate.bytes_after)
        typer.echo(f"    {candidate.recipe}: {candidate.precision}, {size}{speed}; {fate}")
    if candidate.smoothing:
        typer.echo(f"      {candidate.smoothing}")
    if candidate.slow:
        layers = ", ".join(f"{layer} ({faster:.2f})" for layer, faster in candidate.slow.items())
        typer.echo(f"      restored to float32, since not faster: {layers}")
    if candidate.sensitive:
        layers = ", ".join(f"{layer} ({db:.1f} dB)" for layer, db in candidate.sensitive.items())
        typer.echo(f"      restored to float32, since most sensitive: {layers}")


def _print_results(results: Sequence[QualityResult]) -> None:
    typer.echo(f"  {'component':<16}{'measure':<28}{'value':>9}   limit")
    for result in results:
        subject = f"preset {result.preset}" if result.preset else result.component or "speech"
        sign = ">=" if result.bound == "at_least" else "<="
        mark = "" if result.passed else "   REFUSED"
        typer.echo(
            f"  {subject:<16}{result.measure:<28}{result.value:>9.3g}"
            f"   {sign} {result.limit:g}{mark}"
        )
