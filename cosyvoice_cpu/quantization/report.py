"""What a quantization did, as plain values for a table or JSON."""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult


@dataclass(frozen=True)
class ComponentReport:
    """One component of the recipe."""

    name: ComponentName
    precision: str  # of the result
    layers: int  # quantized
    kept: list[str]  # layers that stayed float32
    bytes_before: int
    bytes_after: int
    speedup: float | None = None  # float32 time / quantized time; null if not measured
    put_back: str | None = None  # why it is float32 again, if it is


@dataclass(frozen=True)
class QuantizationReport:
    """The whole run; of a dry run, what would be done."""

    recipe: str
    components: list[ComponentReport]
    results: list[QualityResult]  # of the gate; empty for a dry run
    items: list[str]  # what was measured on
    bytes_before: int  # of the bundle
    bytes_after: int
    forced: bool
    written: bool
