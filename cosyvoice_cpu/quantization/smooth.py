"""Even out a layer's input channels by moving their size into its weight, at no run-time cost.

A channel that is far larger than the others makes the steps of 8-bit activations too wide for all
of them. With s[k] = largest input[k]^a / largest weight[k]^(1 - a) both sides share the difficulty;
a is the strength. Kernels that quantize weights alone want s[k] = typical input[k]^a instead: rows
that matter more get finer steps. Source: SmoothQuant, arXiv 2211.10438; AWQ, arXiv 2306.00978.

The strength is searched layer by layer: the one with the least error of the layer's product, as its
kernel will compute it, on rows that were seen in calibration.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.folds import Fold, Smoothing
from cosyvoice_cpu.quantization.imitation import imitated_product
from cosyvoice_cpu.quantization.kernels import Form
from cosyvoice_cpu.quantization.observe import Observed
from cosyvoice_cpu.quantization.rewrite import WEIGHT

SEARCHED = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # strengths; 0 leaves a layer as it is
_COLUMNS = 384  # of a weight that the error is estimated on
_WIDEST = 1e4  # largest scale / smallest: a channel without input must not become one of weights


def find_smoothing(
    floats: Mapping[str, Weight],
    layers: Mapping[str, Form],
    folds: Sequence[Fold],
    observed: Mapping[str, Observed],
    strength: float | None,
    progress: Callable[[float], None],
) -> Smoothing:
    """The scales of each quantized layer that has a fold; `strength` None is searched."""
    scales: dict[str, Floats] = {}
    strengths: dict[str, float] = {}
    wanted = [fold for fold in folds if fold.layer in layers and fold.layer in observed]
    for count, fold in enumerate(wanted):
        weight = np.asarray(floats[fold.layer + WEIGHT].load(), np.float32)
        seen, form = observed[fold.layer], layers[fold.layer]
        tried = {
            value: _scale(value, fold, weight, seen, form)
            for value in (SEARCHED if strength is None else (strength,))
        }
        chosen = min(tried, key=lambda value: _error(tried[value], fold, weight, seen, form))
        strengths[fold.layer] = chosen
        if chosen:
            scales[fold.layer] = tried[chosen]
        progress((count + 1) / len(wanted))
    return Smoothing(folds, scales, strengths)


def _scale(strength: float, fold: Fold, weight: Floats, seen: Observed, form: Form) -> Floats:
    """[scales], positive, around 1; ones for strength 0."""
    if not strength:
        return np.ones(fold.scales, np.float32)
    weights_alone = form.kernel.startswith("weight-only")
    size = np.sqrt(np.square(seen.rows).mean(axis=0)) if weights_alone else seen.largest
    scale = _shared(fold, size) ** np.float32(strength)
    if not weights_alone:
        rows = _shared(fold, np.abs(weight).max(axis=1))
        scale = scale / np.maximum(rows, np.finfo(np.float32).tiny) ** np.float32(1 - strength)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1)
    scale = scale / np.exp(np.log(scale).mean())
    clipped: Floats = np.clip(scale, _WIDEST**-0.5, _WIDEST**0.5).astype(np.float32)
    return clipped


def _shared(fold: Fold, channels: Floats) -> Floats:
    """[K] to [scales]: the largest of the channels that share one."""
    result = np.zeros(fold.scales, np.float32)
    np.maximum.at(result, fold.scale_of, channels)
    return result


def _error(scale: Floats, fold: Fold, weight: Floats, seen: Observed, form: Form) -> float:
    """Squared error of the product of the rows seen with some columns of the weight."""
    columns = weight[:, :: max(1, weight.shape[1] // _COLUMNS)]
    factor = scale[fold.scale_of]
    low, high = float((seen.low / factor).min()), float((seen.high / factor).max())
    got = imitated_product(seen.rows / factor, columns * factor[:, None], form, low, high)
    return float(np.square(got - seen.rows @ columns).sum())
