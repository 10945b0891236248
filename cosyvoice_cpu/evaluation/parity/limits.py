"""How far a bundle may be from what it is compared with, by what its parts are stored in.

Float32 and float16 storage have the limits below. What a recipe quantized has the limits of that
recipe, which the bundle's manifest states with its gate results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest
from cosyvoice_cpu.evaluation.distances import (
    relative_error,
    spectrum_difference_db,
    sqnr_db,
)
from cosyvoice_cpu.evaluation.parity.outputs import Bound

Level = Literal["tensor", "mel", "spectrum", "samples"]

_HALF_STORAGE = "float16-storage"
_PLAIN = ("float32", _HALF_STORAGE)


@dataclass(frozen=True)
class ParityRow:
    """One array to compare."""

    name: str
    level: Level
    component: ComponentName  # to blame if all rows before agree
    depends_on: tuple[ComponentName, ...]
    output: str  # attribute of `parity.Outputs`
    float32: float  # limit of the relative error, or of the spectrum's difference in dB
    float16: float
    gate_measure: str | None = None  # of the recipe, for quantized parts


_FLOW: tuple[ComponentName, ...] = ("flow_encoder", "flow_estimator")
_ALL: tuple[ComponentName, ...] = (*_FLOW, "vocoder")
_SPECTRUM = "spectrum"

ROWS = (
    ParityRow(
        "logits", "tensor", "speech_lm", ("speech_lm",), "logits", 1e-4, 1e-2, "logits_sqnr_db"
    ),
    ParityRow("mu", "tensor", "flow_encoder", ("flow_encoder",), "mu", 1e-4, 1e-2, "mu_sqnr_db"),
    ParityRow(
        *("speaker", "tensor", "flow_encoder", ("flow_encoder",), "speaker"),
        *(1e-4, 1e-2, "speaker_sqnr_db"),
    ),
    ParityRow(
        *("velocity", "tensor", "flow_estimator", ("flow_estimator",), "velocity"),
        *(1e-4, 1e-2, "velocity_sqnr_db"),
    ),
    ParityRow(
        *("velocity, streaming", "tensor", "flow_estimator", ("flow_estimator",)),
        *("velocity_streaming", 1e-4, 1e-2, "velocity_sqnr_db"),
    ),
    ParityRow("f0", "tensor", "vocoder", ("vocoder",), "f0", 1e-4, 1e-2),
    ParityRow("excitation", "tensor", "vocoder", ("vocoder",), "source", 2e-3, 1e-1),
    ParityRow(
        *("waveform of a given mel", "tensor", "vocoder", ("vocoder",), "vocoded"),
        *(2e-3, 1e-1, "vocoded_sqnr_db"),
    ),
    ParityRow("mel", "mel", "flow_estimator", _FLOW, "mel", 1e-3, 5e-2, "mel_sqnr_db"),
    ParityRow(
        *(_SPECTRUM, "spectrum", "vocoder", _ALL, "waveform"),
        *(0.01, 0.5, "spectrum_db"),
    ),
    ParityRow("waveform", "samples", "vocoder", _ALL, "waveform", 5e-3, 2.5e-1, "waveform_sqnr_db"),
)


@dataclass(frozen=True)
class Judgement:
    """One measure and its limit."""

    measure: str  # with its unit
    bound: Bound
    limit: float
    value: Callable[[Floats, Floats], float]  # (got, want)

    def passes(self, value: float) -> bool:
        """Whether `value` is finite and within the limit."""
        within = value >= self.limit if self.bound == "at_least" else value <= self.limit
        return math.isfinite(value) and within


def judgement_of(row: ParityRow, manifests: Sequence[Manifest]) -> Judgement:
    """How `row` is judged between bundles with these manifests (one, beside a checkpoint)."""
    parts = [m.components[name] for m in manifests for name in row.depends_on]
    limit = row.float16 if any(p.precision == _HALF_STORAGE for p in parts) else row.float32
    quantized = any(part.precision not in _PLAIN for part in parts)
    stated = [
        result.limit
        for manifest in manifests
        for result in manifest.quality.results
        if quantized and result.measure == row.gate_measure
    ]
    if row.name == _SPECTRUM:
        limit = max([limit, *stated])
        return Judgement("spectrum_db", "at_most", limit, spectrum_difference_db)
    if stated:
        return Judgement("sqnr_db", "at_least", min(stated), sqnr_db)
    return Judgement("relative_error", "at_most", limit, relative_error)
