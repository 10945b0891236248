"""What a calibration finds out about a layer, as plain values: the seam to whoever observes.

`fx` fills these records with torch.ao.quantization today; a successor fills the same ones. Kernels,
recipes and reports see nothing else of it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.manifest import ComponentName

CALIBRATION_FILE = "calibration.json"  # in the component's folder
ObserverName = Literal["min-max", "moving-min-max", "histogram", "percentile"]


@dataclass(frozen=True, eq=False)
class LayerParameters:
    """One layer in integers: x ~ (uint8 - zero_point) * scale, w ~ int8 * weight_scale.

    Weights are symmetric in -127..127 with a scale per output channel.
    """

    minimum: float  # that the observer saw enter the layer
    maximum: float
    scale: float
    zero_point: int  # 0..255
    weight_scale: NDArray[np.float32]  # [N]


@dataclass(frozen=True)
class Calibration:
    """All of a component's layers, and where the figures come from."""

    method: str  # program and version
    observer: ObserverName
    items: list[str]  # calibration data
    layers: dict[str, LayerParameters]


class LayerRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A layer's entry in the calibration report."""

    minimum: float  # observed
    maximum: float
    scale: float
    zero_point: int


class CalibrationReport(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`calibration.json`: where the fixed ranges of a component's activations come from."""

    component: ComponentName
    method: str
    observer: ObserverName
    items: list[str]
    layers: dict[str, LayerRange]


def calibration_text(
    component: ComponentName, found: Calibration, layers: Collection[str]
) -> bytes:
    """The text of `calibration.json`, of the `layers` that are quantized."""
    ranges = {
        name: LayerRange(layer.minimum, layer.maximum, layer.scale, layer.zero_point)
        for name, layer in found.layers.items()
        if name in layers
    }
    report = CalibrationReport(component, found.method, found.observer, found.items, ranges)
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
