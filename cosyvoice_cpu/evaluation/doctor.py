"""Judges this machine and installation: what would be slow or not work, why, and what to do."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from math import ceil
from pathlib import Path
from typing import Any, Literal

from cosyvoice_cpu.evaluation.bench.peak_throughput import PeakThroughput
from cosyvoice_cpu.evaluation.bench.roofline import Prediction
from cosyvoice_cpu.runtime.prepacked_graphs import why_not_kept
from cosyvoice_cpu.system.machine import Machine, gigabytes
from cosyvoice_cpu.system.threads import THREADS_VARIABLE

Level = Literal["problem", "slow", "note"]

_RIVAL_ENGINES = ("onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino")
_EXTRAS = {  # extra: the packages that it brings, by import name
    "export": ("torch", "onnx", "onnxconverter_common", "yaml"),
    "text": ("wetext",),
}
_SLOW_GOVERNORS = ("powersave", "conservative", "userspace")
_SCALING_DRIVER = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_driver")
_NVIDIA_DEVICE = Path("/dev/nvidiactl")
_SMALL_GAIN = 2.0  # INT8 products at less than this times float32 make the recipe hardly faster
_BUSY_SHARE = 0.5  # of the usable cores, already taken by other work


@dataclass(frozen=True)
class MachineCheck:
    """`what` is the fact and its consequence, `hint` what to do about it."""

    level: Level
    what: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def check_machine(
    machine: Machine, peak: PeakThroughput, predictions: list[Prediction]
) -> list[MachineCheck]:
    """Everything worth saying about `machine`, the gravest first."""
    checks = [
        *_processor(machine, peak),
        *_cores(machine),
        *_memory(machine, predictions),
        *_prepacked(),
        *_wheels(machine),
        *_extras(),
    ]
    order = ("problem", "slow", "note")
    return sorted(checks, key=lambda check: order.index(check.level))


def _processor(machine: Machine, peak: PeakThroughput) -> Iterator[MachineCheck]:
    sets = machine.instruction_sets
    gain = peak.int8_gops / peak.fp32_gflops
    if sets is None:
        yield MachineCheck("note", "this system does not list the processor's instruction sets")
    elif "AVX2" in sets and not sets["AVX2"]:
        yield MachineCheck(
            "slow",
            "the processor has no AVX2: everything runs several times slower than it could",
            "in a virtual machine, choose a CPU model that passes AVX2 on (such as `host`)",
        )
    elif not (sets.get("VNNI") or sets.get("DOT")):
        yield MachineCheck(
            "slow",
            "the processor has no INT8 dot product (VNNI): INT8 saves memory and little time",
        )
    if gain < _SMALL_GAIN:
        yield MachineCheck(
            "slow",
            f"INT8 products run at {gain:.1f} times the speed of float32 here",
            "expect little from INT8 in the flow; the speech LM still gains, it waits for memory",
        )


def _cores(machine: Machine) -> Iterator[MachineCheck]:
    if machine.usable_cpus < machine.logical_cpus:
        yield MachineCheck(
            "slow",
            f"this process may run on {machine.usable_cpus} of {machine.logical_cpus} CPUs",
            "widen its affinity (taskset, --cpuset-cpus, a Slurm allocation) if that is not wanted",
        )
    quota = machine.quota_cpus
    if quota is not None and quota < machine.physical_cores:
        yield MachineCheck(
            "slow",
            f"the container grants {quota:g} CPUs of {machine.physical_cores} cores; more threads"
            " than that are stopped again and again",
            "raise the quota (--cpus), or leave the number of threads at the default",
        )
    text = os.environ.get(THREADS_VARIABLE, "")
    cores = min(machine.physical_cores, ceil(quota) if quota else machine.physical_cores)
    if text.isdigit() and int(text) > cores:
        yield MachineCheck(
            "slow",
            f"{THREADS_VARIABLE} is {text}, more than the {cores} cores at hand",
            f"unset it; the default here is {machine.default_threads}",
        )
    # Intel's own driver calls its dynamic mode powersave.
    driver = _SCALING_DRIVER.read_text().strip() if _SCALING_DRIVER.exists() else ""
    if machine.governor in _SLOW_GOVERNORS and not driver.startswith(
        ("intel_pstate", "amd-pstate")
    ):
        yield MachineCheck(
            "slow",
            f"the frequency governor is {machine.governor}: the cores start slowly",
            "cpupower frequency-set -g performance (or schedutil)",
        )
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > _BUSY_SHARE * machine.usable_cpus:
        yield MachineCheck(
            "note",
            f"other work keeps about {load:.1f} CPUs busy, so what is measured here is too low",
            "run doctor again when the machine is idle",
        )


def _memory(machine: Machine, predictions: list[Prediction]) -> Iterator[MachineCheck]:
    limit, total = machine.memory_limit_mb, machine.memory_mb
    usable = min(value for value in (limit, total, float("inf")) if value is not None)
    if limit is not None and total is not None and limit < total:
        yield MachineCheck(
            "note", f"the container grants {gigabytes(limit)} of {gigabytes(total)} memory"
        )
    for prediction in predictions:
        if prediction.peak_rss_mb > usable:
            yield MachineCheck(
                "problem",
                f"{prediction.recipe} needs about {gigabytes(prediction.peak_rss_mb)} of memory, "
                f"there are {gigabytes(usable)}",
                "use a smaller recipe: `cosyvoice-cpu quantize`",
            )
        elif machine.available_mb is not None and prediction.peak_rss_mb > machine.available_mb:
            yield MachineCheck(
                "slow",
                f"{prediction.recipe} needs about {gigabytes(prediction.peak_rss_mb)} of memory, "
                f"{gigabytes(machine.available_mb)} are free: weights will be read again and again",
                "end other programs, or use a smaller recipe: `cosyvoice-cpu quantize`",
            )


def _prepacked() -> Iterator[MachineCheck]:
    reason = why_not_kept()
    if reason is not None:
        yield MachineCheck(
            "slow",
            f"{reason}: every process repacks integer weights for itself, at full size in 2 s and"
            " into 0.6 GB of memory",
            "set COSYVOICE_CPU_CACHE to a folder of yours with 2 GB of room",
        )


def _wheels(machine: Machine) -> Iterator[MachineCheck]:
    rivals = [name for name in _RIVAL_ENGINES if _installed(name)]
    if rivals and _installed("onnxruntime"):
        both = " and ".join(["onnxruntime", *rivals])
        yield MachineCheck(
            "problem",
            f"{both} are installed over each other: which one runs is chance",
            f"pip uninstall {' '.join(['onnxruntime', *rivals])}, then pip install onnxruntime",
        )
    cuda = _torch_cuda()
    if cuda is not None and not _NVIDIA_DEVICE.exists():
        yield MachineCheck(
            "note",
            f"torch {machine.packages.get('torch', '')} is the build for CUDA {cuda}, on a machine "
            "without an NVIDIA GPU: gigabytes of disk for nothing",
            "pip install torch --index-url of PyTorch's CPU wheels (see README)",
        )


def _extras() -> Iterator[MachineCheck]:
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            yield MachineCheck(
                "note",
                f"the extra [{extra}] is not complete: no {', '.join(missing)}",
                f'pip install "cosyvoice-cpu[{extra}]"',
            )


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True


def _torch_cuda() -> str | None:
    """The CUDA version of the installed torch, None for a CPU build or none; imports nothing."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.origin:
        return None
    try:
        text = (Path(spec.origin).parent / "version.py").read_text()
    except OSError:
        return None
    found = re.search(r"^cuda\s*(?::[^=]*)?=\s*['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return found.group(1) if found else None
