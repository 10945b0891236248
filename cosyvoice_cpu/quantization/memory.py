"""How much memory a quantization needs, before it is started."""

from __future__ import annotations

import math
from collections.abc import Sequence

from cosyvoice_cpu.quantization.component import ComponentPlan
from cosyvoice_cpu.quantization.rewrite import WEIGHT

_PROGRAM = 200_000_000  # bytes: Python, onnx, onnxruntime
_ACTIVATIONS = 150_000_000  # of the sizes that calibration uses, in the arena of all sessions
# Copies of one float32 weight at the same time while its integers are searched: the groups, what is
# tried, what is best, and what NumPy needs in between.
_COPIES = 8


def predicted_memory(plans: Sequence[ComponentPlan]) -> int:
    """Bytes that must fit; float weights and results are mapped files and can be dropped.

    The engine repacks the integers of the component that is tried.
    """
    packing = _COPIES * max((_largest(plan) for plan in plans), default=0)
    repacked = max((_integers(plan) for plan in plans), default=0)
    return _PROGRAM + max(packing, repacked + _ACTIVATIONS)


def _largest(plan: ComponentPlan) -> int:
    return max(plan.floats[layer + WEIGHT].num_bytes for layer in plan.layers)


def _integers(plan: ComponentPlan) -> int:
    return sum(
        math.prod(weight.shape) * weight.dtype.itemsize
        for name, weight in plan.weights.items()
        if name.endswith(WEIGHT) and name.removesuffix(WEIGHT) in plan.layers
    )
