"""`cosyvoice-cpu doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cosyvoice_cpu.cli.options import JsonOption, ThreadsOption

if TYPE_CHECKING:
    from cosyvoice_cpu.evaluation.doctor import MachineCheck
    from cosyvoice_cpu.system.machine import Machine


def doctor(
    json: JsonOption = False,
    threads: ThreadsOption = None,
    serve: Annotated[
        bool, typer.Option("--serve", help="Say too what this machine can carry as a server.")
    ] = False,
) -> None:
    """Say what this machine can do, what would be slow and why, and predict speed and memory.

    Example: cosyvoice-cpu doctor
    """
    from cosyvoice_cpu.checkpoint.settings import audio_settings, synthesis_settings
    from cosyvoice_cpu.checkpoint.sizes import FULL
    from cosyvoice_cpu.cli.messages import note, print_json
    from cosyvoice_cpu.evaluation.bench.peak_throughput import measure_peak_throughput
    from cosyvoice_cpu.evaluation.bench.roofline import RECIPES, predict
    from cosyvoice_cpu.evaluation.bench.workload import Request, Workload
    from cosyvoice_cpu.evaluation.doctor import check_machine
    from cosyvoice_cpu.evaluation.serving_capacity import check_serving, open_files_limit
    from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
    from cosyvoice_cpu.system.machine import describe_machine, gigabytes
    from cosyvoice_cpu.system.threads import resolve_threads

    count = resolve_threads(threads)
    machine, workload = describe_machine(), Workload()
    request = Request(workload, audio_settings(FULL), synthesis_settings(COSYVOICE3, FULL))
    note("measuring matrix products and memory, 3 seconds")
    peak = measure_peak_throughput(count)
    predictions = [predict(recipe, FULL, request, peak) for recipe in RECIPES]
    checks = check_machine(machine, peak, predictions)
    if serve:
        checks += check_serving(machine, predictions, open_files_limit())
    if json:
        print_json(
            {
                "machine": machine.as_json(),
                "peak_throughput": peak.as_json(),
                "predictions": [prediction.as_json() for prediction in predictions],
                "checks": [check.as_json() for check in checks],
            }
        )
        return
    _print_machine(machine)
    typer.echo(
        f"With {count} threads: {peak.fp32_gflops:.0f} GFLOP/s in float32, "
        f"{peak.int8_gops:.0f} GOP/s in INT8, {peak.read_gb_s:.0f} GB/s from memory."
    )
    typer.echo(
        f"Fun-CosyVoice3-0.5B, {workload.seconds:g} s of speech after a clip of "
        f"{workload.prompt_seconds:g} s, predicted roughly:"
    )
    for prediction in predictions:
        typer.echo(
            f"  {prediction.recipe:<9}RTF {prediction.rtf:4.1f} (speech LM "
            f"{prediction.speech_lm_s:.1f} s, flow {prediction.flow_s:.1f} s, vocoder "
            f"{prediction.vocoder_s:.1f} s), {gigabytes(prediction.peak_rss_mb)} of memory"
        )
    for check in checks:
        _print_check(check)


def _print_machine(machine: Machine) -> None:
    from cosyvoice_cpu.system.machine import gigabytes

    sets = machine.instruction_sets or {}
    have = " ".join(name for name, there in sets.items() if there) or "not listed"
    lack = " ".join(name for name, there in sets.items() if not there)
    quota = "none" if machine.quota_cpus is None else f"{machine.quota_cpus:g} CPUs"
    versions = ", ".join(f"{name} {version}" for name, version in machine.packages.items())
    rows = {
        "processor": machine.cpu,
        "instructions": have + (f" (without {lack})" if lack else ""),
        "cores": f"{machine.physical_cores} physical on {machine.usable_cpus} of "
        f"{machine.logical_cpus} CPUs, container quota {quota}; default threads "
        f"{machine.default_threads}",
        "memory": f"{gigabytes(machine.memory_mb)}, {gigabytes(machine.available_mb)} free"
        + (f", limit {gigabytes(machine.memory_limit_mb)}" if machine.memory_limit_mb else ""),
        "governor": machine.governor or "not visible",
        "system": f"{machine.system}, Python {machine.python}",
        "packages": versions,
    }
    for name, value in rows.items():
        typer.echo(f"{name:<14}{value}")


def _print_check(check: MachineCheck) -> None:
    typer.echo(f"{check.level}: {check.what}")
    if check.hint:
        typer.echo(f"  hint: {check.hint}")
