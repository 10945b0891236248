"""Smooth a layer's input channels by moving their size into its weight, at no run-time cost.

A channel that is far larger than the others makes the steps of 8-bit activations too wide for all
of them. With s[k] = largest input[k]^alpha / largest weight[k]^(1 - alpha) both sides share the
difficulty. Kernels that quantize weights alone want s[k] = typical input[k]^alpha instead: rows
that matter more get finer steps. Source: SmoothQuant, arXiv 2211.10438; AWQ, arXiv 2306.00978.

Alpha is searched layer by layer: the one with the least error of the layer's product, as its kernel
will compute it, on rows that were recorded in calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.quantization.calibration.activations import LayerActivations
from cosyvoice_cpu.quantization.calibration.scale_folding import ScaleFold, Smoothing
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT
from cosyvoice_cpu.quantization.kernels.simulation import simulated_product
from cosyvoice_cpu.quantization.kernels.variants import KernelVariant

ALPHAS = (0.0, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)  # searched; 0 leaves a layer as it is
_COLUMNS = 384  # of a weight that the error is estimated on
_WIDEST = 1e4  # largest scale / smallest: a channel without input must not become one of weights


def find_smoothing(
    floats: Mapping[str, Weight],
    layers: Mapping[str, KernelVariant],
    folds: Sequence[ScaleFold],
    recorded: Mapping[str, LayerActivations],
    alpha: float | None,
    progress: Share,
) -> Smoothing:
    """The scales of each quantized layer that has a fold; `alpha` None is searched."""
    scales: dict[str, Floats] = {}
    alphas: dict[str, float] = {}
    wanted = [fold for fold in folds if fold.layer in layers and fold.layer in recorded]
    for count, fold in enumerate(wanted):
        weight = np.asarray(floats[fold.layer + WEIGHT].load(), np.float32)
        seen, variant = recorded[fold.layer], layers[fold.layer]
        tried = {
            value: _scale(value, fold, weight, seen, variant)
            for value in (ALPHAS if alpha is None else (alpha,))
        }
        chosen = min(tried, key=lambda value: _error(tried[value], fold, weight, seen, variant))
        alphas[fold.layer] = chosen
        if chosen:
            scales[fold.layer] = tried[chosen]
        progress((count + 1) / len(wanted))
    return Smoothing(folds, scales, alphas)


def _scale(
    alpha: float, fold: ScaleFold, weight: Floats, seen: LayerActivations, variant: KernelVariant
) -> Floats:
    """[scales], positive, around 1; ones for alpha 0."""
    if not alpha:
        return np.ones(fold.scales, np.float32)
    size = np.sqrt(np.square(seen.rows).mean(axis=0)) if variant.weight_only else seen.largest
    scale = _shared(fold, size) ** np.float32(alpha)
    if not variant.weight_only:
        rows = _shared(fold, np.abs(weight).max(axis=1))
        scale = scale / np.maximum(rows, np.finfo(np.float32).tiny) ** np.float32(1 - alpha)
    scale = np.where(np.isfinite(scale) & (scale > 0), scale, 1)
    scale = scale / np.exp(np.log(scale).mean())
    clipped: Floats = np.clip(scale, _WIDEST**-0.5, _WIDEST**0.5).astype(np.float32)
    return clipped


def _shared(fold: ScaleFold, channels: Floats) -> Floats:
    """[K] to [scales]: the largest of the channels that share one."""
    result = np.zeros(fold.scales, np.float32)
    np.maximum.at(result, fold.scale_of, channels)
    return result


def _error(
    scale: Floats, fold: ScaleFold, weight: Floats, seen: LayerActivations, variant: KernelVariant
) -> float:
    """Squared error of the product of the recorded rows with some columns of the weight."""
    columns = weight[:, :: max(1, weight.shape[1] // _COLUMNS)]
    factor = scale[fold.scale_of]
    low, high = float((seen.low / factor).min()), float((seen.high / factor).max())
    got = simulated_product(seen.rows / factor, columns * factor[:, None], variant, low, high)
    return float(np.square(got - seen.rows @ columns).sum())
