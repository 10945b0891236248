"""`cosyvoice-cpu bench`."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cosyvoice_cpu.cli.options import JsonOption, StreamWorkersOption, ThreadsOption

if TYPE_CHECKING:
    from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
    from cosyvoice_cpu.evaluation.bench.inputs import BundleMaker
    from cosyvoice_cpu.evaluation.bench.workload import Workload


def bench(
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="[BUNDLE]...", help="Bundles, a row each.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Model folder for the torch rows.")
    ] = None,
    synthetic: Annotated[
        str | None,
        typer.Option(
            metavar="GENERATION",
            help="Measure a random full-size model (cosyvoice3): no download, same speed.",
        ),
    ] = None,
    rows: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Rows of the checkpoint, by comma: eager, bf16, compile (torch); onnx, dynamic,"
            " int8 (bundles, made if absent). By default eager, bf16, compile, and onnx, int8 if no"
            " bundle is given.",
        ),
    ] = None,
    engine: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A row of each bundle per engine of flow and vocoder: onnxruntime, openvino,"
            " openvino-bf16. Repeatable; by default what the bundle says.",
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(metavar="S", help="Audio to make.")] = 10.0,
    prompt_seconds: Annotated[float, typer.Option(metavar="S", help="Speaker's clip.")] = 5.0,
    repeat: Annotated[int, typer.Option(metavar="N", help="Repetitions of each row.")] = 3,
    decode_tokens: Annotated[
        int, typer.Option(metavar="N", help="Speech tokens decoded per repetition.")
    ] = 24,
    solver_steps: Annotated[
        int, typer.Option(metavar="N", help="Guided solver steps taken per repetition.")
    ] = 2,
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAMES", help="Solver presets of the bundles, by comma: a row for each."
        ),
    ] = "default",
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Measure streams beside whole speech; bundles only."),
    ] = False,
    no_whole: Annotated[
        bool,
        typer.Option(
            "--no-whole", help="With --stream: leave out whole speech; memory is a stream's."
        ),
    ] = False,
    workers: StreamWorkersOption = None,
    no_loading: Annotated[
        bool, typer.Option("--no-loading", help="Don't measure loading, cold and warm.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="PREFIX", help="Write PREFIX.csv, PREFIX.md, and PREFIX.svg, a chart."
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="Mark what became slower since that run."),
    ] = None,
    work: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where checkpoint and bundles are made, if needed."),
    ] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep them for the next run; it will use them.")
    ] = False,
    json: JsonOption = False,
    threads: ThreadsOption = None,
) -> None:
    """Measure speed, memory and loading of engines and bundles side by side.

    Example: cosyvoice-cpu bench --synthetic cosyvoice3 --keep --output bench
    """
    from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
    from cosyvoice_cpu.cli.messages import note, print_json
    from cosyvoice_cpu.errors import OutputError, SynthesisError, UsageError
    from cosyvoice_cpu.evaluation.bench import run as library
    from cosyvoice_cpu.evaluation.bench.engines import bundle_specs
    from cosyvoice_cpu.evaluation.bench.inputs import BenchInputs, config_of, default_rows
    from cosyvoice_cpu.evaluation.bench.report import (
        changes_since,
        markdown,
        read_earlier,
        write_files,
    )
    from cosyvoice_cpu.evaluation.bench.workload import Workload
    from cosyvoice_cpu.synthesis.streaming import stream_workers
    from cosyvoice_cpu.system.machine import describe_machine
    from cosyvoice_cpu.system.threads import resolve_threads

    if no_whole and not stream:
        raise UsageError("--no-whole is about --stream", "add --stream")
    if checkpoint and synthetic:
        raise UsageError("--checkpoint and --synthetic exclude each other", "give one of them")
    workload = Workload(seconds, prompt_seconds, decode_tokens, solver_steps)
    count = resolve_threads(threads)
    if compare:
        read_earlier(compare)  # before minutes of work, not after
    if output and not os.path.isdir(output.parent):
        raise OutputError(f"there is no folder {output.parent}", "create the folder first")
    makers = bundle_makers(workload, count, force=bool(synthetic))
    with BenchInputs(work, workload, makers, note, keep=keep) as inputs:
        if synthetic:
            checkpoint = inputs.synthetic_checkpoint(synthetic)
        given = bundles or []
        names = rows.split(",") if rows else default_rows(checkpoint, given)
        of_bundles = bundle_specs(given, preset.split(","), engine or (None,))
        for spec in of_bundles:
            if spec.preset != DEFAULT_PRESET:
                spec.request(workload)  # now, not after minutes of work
        specs = inputs.rows(names, checkpoint) + of_bundles
        if stream:
            width = stream_workers(workers)
            _bench_streams(specs, workload, count, width, repeat, whole=not no_whole, json=json)
            return
        result = library.run_bench(
            specs,
            workload,
            threads=count,
            repeat=repeat,
            config=config_of(checkpoint, given),
            measure_loading=not no_loading,
            notify=note,
        )
    machine = describe_machine()
    if output:
        write_files(result, machine, output)
    changes = changes_since(result, compare) if compare else []
    if json:
        content = library.as_json(result)
        print_json({**content, "machine": machine.as_json(), "changes": [str(c) for c in changes]})
    else:
        typer.echo(markdown(result, machine))
        for change in changes:
            typer.echo(str(change))
    if result.refused:
        raise SynthesisError(
            f"{len(result.refused)} of {len(result.rows)} rows have no figures: "
            + "; ".join(f"{row.spec.name}: {row.note}" for row in result.refused),
            "a figure counts only with sound audio; check the bundle with `cosyvoice-cpu verify`",
        )


def _bench_streams(
    specs: list[EngineSpec],
    workload: Workload,
    threads: int,
    workers: int,
    repeat: int,
    *,
    whole: bool,
    json: bool,
) -> None:
    """Raises: UsageError if a row is no bundle."""
    from cosyvoice_cpu.cli.messages import note, print_json
    from cosyvoice_cpu.errors import UsageError
    from cosyvoice_cpu.evaluation.bench.streams import as_json, markdown, run_stream_bench
    from cosyvoice_cpu.system.machine import describe_machine

    if any(spec.kind != "bundle" for spec in specs):
        raise UsageError("--stream measures bundles", "give bundles, or --rows onnx,int8")
    rows = run_stream_bench(
        *(specs, workload),
        threads=threads,
        workers=workers,
        repeat=repeat,
        whole=whole,
        notify=note,
    )
    if json:
        machine = describe_machine().as_json()
        print_json({"machine": machine, "rows": [as_json(row) for row in rows]})
        return
    typer.echo(f"Machine: {describe_machine().summary()}, {threads} threads.\n")
    typer.echo(markdown(rows))


def bundle_makers(workload: Workload, threads: int, *, force: bool) -> dict[str, BundleMaker]:
    """How rows of bundles are made of a checkpoint; `force` takes INT8 past its quality gate."""
    from cosyvoice_cpu.evaluation.bench.inputs import BundleMaker, seconds_to_hold

    def export(shapes: Literal["static", "dynamic"], checkpoint: Path, path: Path) -> None:
        from cosyvoice_cpu.export.exporter import export_checkpoint

        export_checkpoint(
            checkpoint,
            path,
            shapes=shapes,
            max_seconds=seconds_to_hold(workload),
            front_end=False,
            threads=threads,
        )

    def quantize(bundle: Path, path: Path) -> None:
        from cosyvoice_cpu.quantization import quantize_bundle
        from cosyvoice_cpu.quantization.calibration.pairs import RANDOM

        quantize_bundle(  # the bundles of a bench have no front end
            bundle, path, recipe="int8", calibration=RANDOM, force=force, threads=threads
        )

    return {
        "onnx": BundleMaker(partial(export, "static")),
        "dynamic": BundleMaker(partial(export, "dynamic")),
        "int8": BundleMaker(quantize, source="onnx"),
    }
