"""One bundle of integers in two engines, beside the float32 bundle that it was made from.

    python -m tools.compare_engines voice/ voice-fx/ [--threads N] [--items N]

For each measure of the gate: how far ONNX Runtime is from float32, how far torch is, and how far
they are apart. For each component: how much faster than ONNX Runtime in float32 either is.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.evaluation.parity.outputs import GATE_MEASURES, Outputs
from cosyvoice_cpu.generations import generation_named
from cosyvoice_cpu.quantization.calibration.pairs import calibration_items
from cosyvoice_cpu.quantization.search.timing import speedup_of
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance
from tools.failures import reports_failures


@dataclass(frozen=True)
class Agreement:
    """A measure of the gate, the worst over all items."""

    component: ComponentName
    measure: str  # with its unit
    onnxruntime: float  # against float32
    torch: float
    apart: float  # torch against ONNX Runtime


@dataclass(frozen=True)
class Speed:
    """Time in float32 on ONNX Runtime / time in integers."""

    component: ComponentName
    onnxruntime: float
    torch: float


def agreements(
    reference: BundleStages, sides: tuple[BundleStages, BundleStages], items: Sequence[Utterance]
) -> list[Agreement]:
    """Measures of the components that were quantized with calibrated ranges."""
    outputs = []
    for item in items:
        want = Outputs(reference, item)
        outputs.append((want, *(Outputs(side, item, want) for side in sides)))
    rows = []
    for measure in GATE_MEASURES:
        if measure.component not in quantized_parts(sides[0]):
            continue
        worst = min if measure.bound == "at_least" else max
        arrays = [[getattr(side, measure.output) for side in triple] for triple in outputs]
        rows.append(
            Agreement(
                measure.component,
                measure.name,
                onnxruntime=worst(measure.value(onnx, want) for want, onnx, _ in arrays),
                torch=worst(measure.value(torch, want) for want, _, torch in arrays),
                apart=worst(measure.value(torch, onnx) for _, onnx, torch in arrays),
            )
        )
    return rows


def speeds(
    reference: BundleStages, sides: tuple[BundleStages, BundleStages], item: Utterance
) -> list[Speed]:
    """One call for each component, all engines taking turns in pairs."""
    return [
        Speed(name, *(speedup_of(name, (reference, side), item) for side in sides))
        for name in quantized_parts(sides[0])
    ]


def quantized_parts(stages: BundleStages) -> list[ComponentName]:
    """The components with calibrated ranges."""
    parts = stages.manifest.components
    return [name for name, part in parts.items() if part.precision == "int8-static"]


@reports_failures
def main() -> int:
    """Print both tables; exit code 0, or 2 for what can't be done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("float32", type=Path)
    parser.add_argument("quantized", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=int, default=4)
    options = parser.parse_args()
    reference = BundleStages.load(options.float32, options.threads)
    networks = generation_named(reference.manifest.generation).components
    sides = (
        BundleStages.load(options.quantized, options.threads),
        BundleStages.load(
            options.quantized, options.threads, engines=dict.fromkeys(networks, "torch")
        ),
    )
    held_out = calibration_items(reference, None, lambda done: None).held_out
    items = held_out[: options.items]
    print("| component | measure | ONNX Runtime | torch | apart |\n|---|---|---|---|---|")
    for row in agreements(reference, sides, items):
        values = f"{row.onnxruntime:.2f} | {row.torch:.2f} | {row.apart:.2f}"
        print(f"| {row.component} | `{row.measure}` | {values} |")
    print("\n| component | times as fast: ONNX Runtime | torch |\n|---|---|---|")
    for speed in speeds(reference, sides, items[0]):
        print(f"| {speed.component} | {speed.onnxruntime:.2f} | {speed.torch:.2f} |")
    print(f"\nmeasured on {', '.join(item.name for item in items)}, {options.threads} threads")
    return 0


if __name__ == "__main__":
    sys.exit(main())
