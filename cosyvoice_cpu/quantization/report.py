"""What a quantization did, as plain values for a table or JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult


@dataclass(frozen=True)
class AttemptReport:
    """One form of a component that was tried."""

    recipe: str
    precision: str
    layers: int  # quantized
    slow: dict[str, float]  # layers put back to float32, and their float32 time / quantized time
    sensitive: dict[str, float]  # layers put back for quality, and the SQNR in dB of each alone
    results: list[QualityResult]
    speedup: float | None  # float32 time / quantized time
    bytes_after: int
    smoothing: str | None  # what was evened out
    refusal: str | None  # why it can't be taken


@dataclass(frozen=True)
class ComponentReport:
    """One component of the recipe."""

    name: ComponentName
    recipe: str  # the one that made it
    precision: str  # of the result
    layers: int  # quantized
    kept: list[str]  # layers that stayed float32
    bytes_before: int
    bytes_after: int
    speedup: float | None = None  # float32 time / quantized time; null if not measured
    put_back: str | None = None  # why it is float32 again, if it is
    attempts: list[AttemptReport] = field(default_factory=list)


@dataclass(frozen=True)
class QuantizationReport:
    """The whole run; of a dry run, what would be done."""

    recipe: str
    components: list[ComponentReport]
    results: list[QualityResult]  # of the gate; empty for a dry run
    items: list[str]  # what was measured on
    bytes_before: int  # of the bundle
    bytes_after: int
    memory_bytes: int  # predicted: what must fit into memory, beside mapped files
    forced: bool
    written: bool
    resumed: int = 0  # measurements that an interrupted run had left
    notes: list[str] = field(default_factory=list)  # what could not be measured, and why
