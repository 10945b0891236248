"""What a sample of sentences says about all sentences: means with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
_LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean, and where it would fall in 95 of 100 other samples of sentences."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    values: Sequence[float], weights: Sequence[float] | None = None, *, seed: int = 0
) -> Interval:
    """Weighted mean of `values` [n] with its 95 % percentile bootstrap interval over items.

    With errors per word as values and words as weights it is the pooled word error rate. Items of
    weight 0 count for nothing; the interval of one item is that item. The interval always holds the
    mean; the same seed gives the same interval.
    Raises: ValueError if there is no weight at all, or the lengths differ.
    Source: Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13; for word error rates
    Bisani and Ney, ICASSP 2004.
    """
    value = np.asarray(values, np.float64)
    weight = np.ones_like(value) if weights is None else np.asarray(weights, np.float64)
    if value.shape != weight.shape or not (weight.sum() > 0):
        raise ValueError(f"{value.size} values and weights {weight.tolist()} have no mean")
    value, weight = value[weight > 0], weight[weight > 0]
    mean = float(np.average(value, weights=weight))
    drawn = np.random.default_rng(seed).integers(0, len(value), (RESAMPLES, len(value)))
    means = (value * weight)[drawn].sum(1) / weight[drawn].sum(1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(mean, min(float(low), mean), max(float(high), mean))
