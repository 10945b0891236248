"""What this machine is: processor, cores and what a container grants of them, memory, versions."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from cosyvoice_cpu.system.control_groups import cpu_quota, memory_limit
from cosyvoice_cpu.system.threads import default_threads, physical_cores, usable_cpus

# /proc/cpuinfo flags of x86, by the names that people use. BF16 without AMX is AVX512_BF16.
_INSTRUCTION_SETS = {
    "AVX2": {"avx2"},
    "AVX-512": {"avx512f"},
    "VNNI": {"avx512_vnni", "avx_vnni"},
    "BF16": {"avx512_bf16", "amx_bf16"},
    "AMX": {"amx_tile"},
}
_ARM_SETS = {"NEON": {"asimd"}, "DOT": {"asimddp"}, "I8MM": {"i8mm"}, "BF16": {"bf16"}}
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
PACKAGES = ("numpy", "onnxruntime", "tokenizers", "soundfile", "onnx", "torch", "wetext")


@dataclass(frozen=True)
class Machine:
    """Facts only; `doctor` judges them. None where the system does not tell."""

    cpu: str
    architecture: str  # "x86_64", "arm64", ...
    instruction_sets: dict[str, bool] | None
    logical_cpus: int
    usable_cpus: int  # after affinity
    physical_cores: int  # among the usable
    quota_cpus: float | None  # what the control group grants, None without a limit
    default_threads: int
    memory_mb: float | None
    available_mb: float | None
    memory_limit_mb: float | None  # of the control group
    governor: str | None
    system: str
    python: str
    packages: dict[str, str]  # installed ones among PACKAGES, and their versions

    def as_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)

    def summary(self) -> str:
        """One line for the head of a table."""
        sets = ", ".join(name for name, there in (self.instruction_sets or {}).items() if there)
        versions = " ".join(
            f"{name} {self.packages[name]}"
            for name in ("onnxruntime", "torch")
            if name in self.packages
        )
        return (
            f"{self.cpu} ({sets or self.architecture}), {self.physical_cores} cores usable, "
            f"{gigabytes(self.memory_mb)} memory, {self.system}, Python {self.python}, {versions}"
        )


def describe_machine() -> Machine:
    """Look at this machine; never fails."""
    total, available = _memory_mb()
    limit = memory_limit()
    usable = usable_cpus()
    return Machine(
        cpu=_cpu_name(),
        architecture=platform.machine(),
        instruction_sets=_instruction_sets(_cpu_flags()),
        logical_cpus=os.cpu_count() or 1,
        usable_cpus=len(usable),
        physical_cores=len(physical_cores(usable)),
        quota_cpus=cpu_quota(),
        default_threads=default_threads(),
        memory_mb=total,
        available_mb=available,
        memory_limit_mb=None if limit is None else limit / 1e6,
        governor=_first_line(_GOVERNOR),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=_packages(),
    )


def gigabytes(megabytes: float | None) -> str:
    """As in "24.9 GB", "?" for None."""
    return "?" if megabytes is None else f"{megabytes / 1000:.1f} GB"


def _cpuinfo() -> dict[str, str]:
    """The first processor's lines."""
    lines: dict[str, str] = {}
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return lines
    for line in text.split("\n\n")[0].splitlines():
        name, _, value = line.partition(":")
        lines[name.strip().lower()] = value.strip()
    return lines


def processor_identity() -> str:
    """What tells kinds of processors apart: code made for one may not run, or differ, on another.

    Where the system does not list instruction sets, the machine's name has to stand for them.
    """
    flags = _cpu_flags()
    known = " ".join(sorted(flags)) if flags else platform.node()
    return f"{platform.system()} {platform.machine()} {_cpu_name()} {known}"


def _cpu_name() -> str:
    info = _cpuinfo()
    name = info.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in info and "model" in info:
        name += f" family {info['cpu family']} model {info['model']}"
    return name or "unknown processor"


def _cpu_flags() -> set[str] | None:
    info = _cpuinfo()
    flags = info.get("flags") or info.get("features")
    return set(flags.split()) if flags else None


def _instruction_sets(flags: set[str] | None) -> dict[str, bool] | None:
    """None where the system does not list them (macOS, Windows)."""
    if flags is None:
        return None
    table = _ARM_SETS if "asimd" in flags else _INSTRUCTION_SETS
    return {name: bool(flags & any_of) for name, any_of in table.items()}


def _memory_mb() -> tuple[float | None, float | None]:
    """All memory, and what new programs can have of it without swapping."""
    import psutil  # deferred, as every start would wait for it

    try:
        memory = psutil.virtual_memory()
    except (OSError, psutil.Error):  # Linux without /proc
        return None, None
    return memory.total / 1e6, memory.available / 1e6


def _first_line(path: Path) -> str | None:
    try:
        return path.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None


def _packages() -> dict[str, str]:
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
