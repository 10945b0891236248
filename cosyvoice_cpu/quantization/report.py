"""What a quantization did, as plain values for a table or JSON."""

from __future__ import annotations

from dataclasses import dataclass, field

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult


@dataclass(frozen=True)
class CandidateReport:
    """One candidate for a component."""

    recipe: str
    precision: str
    layers: int  # quantized
    slow: dict[str, float]  # layers restored to float32, and their float32 time / quantized time
    sensitive: dict[str, float]  # layers restored for quality, and the SQNR in dB of each alone
    results: list[QualityResult]
    speedup: float | None  # float32 time / quantized time
    bytes_after: int
    smoothing: str | None  # which layers, and how strongly
    refusal: str | None  # why it can't be taken


@dataclass(frozen=True)
class ComponentReport:
    """One component of the recipe."""

    name: ComponentName
    recipe: str  # the one that made it
    precision: str  # of the result
    layers: int  # quantized
    float32_layers: list[str]
    bytes_before: int
    bytes_after: int
    speedup: float | None = None  # float32 time / quantized time; null if not measured
    restored: str | None = None  # why the component is float32 again, if it is
    candidates: list[CandidateReport] = field(default_factory=list)


@dataclass(frozen=True)
class PresetReport:
    """A solver tried: what it costs and loses. Intervals are [mean, low, high], of 95 %."""

    candidate: str
    evaluations: int  # of the network
    rows: int  # computed in all: the cost; 20 for the original's ten guided steps
    mel_db_from_default: float
    mel_db_from_exact: float
    mos_lost: list[float]  # on the same speech tokens
    sentences: int  # judged, all seeds counted; those of the screening alone if not a finalist
    word_errors_added: list[float] | None = None  # per word
    prompt_similarity_lost: list[float] | None = None
    results: list[QualityResult] = field(default_factory=list)
    refusal: str | None = None  # why it was not taken


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
    calibration: str = ""  # the folder of the items, or "random ids"
    fitted_items: list[str] = field(default_factory=list)  # what recipes could be fitted to
    reused: int = 0  # measurements of an interrupted run
    presets: list[PresetReport] = field(default_factory=list)  # solvers tried, by cost
    notes: list[str] = field(default_factory=list)  # what could not be measured, and why
