"""The result of a comparison: values item by item, and in sum with 95 % bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from cosyvoice_cpu.evaluation.quality.intelligibility import WordErrors
from cosyvoice_cpu.evaluation.quality.measures import Measure, Of
from cosyvoice_cpu.evaluation.quality.sentences import Sentence

RESAMPLES = 2000
_LEVEL = 0.95

Key = tuple[str, Of]


@dataclass(frozen=True)
class Interval:
    """A mean, and where it would fall in 95 of 100 other samples of sentences."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """A value, and how much it counts in the mean over items."""

    value: float
    weight: float = 1.0


@dataclass
class ItemResult:
    """What was measured on one sentence; a measure that has no value there is absent."""

    sentence: Sentence
    cells: dict[Key, Cell] = field(default_factory=dict)
    transcripts: dict[Of, str] = field(default_factory=dict)
    word_errors: dict[Of, WordErrors] = field(default_factory=dict)

    def put(self, name: str, value: float, weight: float = 1.0, of: Of = "both") -> None:
        """Note a value."""
        self.cells[name, of] = Cell(value, weight)

    def average(self, others: Sequence[ItemResult]) -> None:
        """Take the mean of what further draws of the sentence have, too.

        Transcripts and their errors stay those of the first draw.
        """
        for key, cell in self.cells.items():
            drawn = [other.cells[key].value for other in others if key in other.cells]
            if drawn:
                value = (cell.value + sum(drawn)) / (1 + len(drawn))
                self.cells[key] = Cell(value, cell.weight)


@dataclass(frozen=True)
class MeasureRow:
    """A measure over all items that have it."""

    measure: Measure
    of: Of
    items: int
    interval: Interval


@dataclass(frozen=True)
class QualityTable:
    """`reference` and `candidate` name the systems; without a reference there is one only."""

    reference: str | None
    candidate: str
    seed: int
    measures: Sequence[Measure]
    items: Sequence[ItemResult]
    notes: Sequence[str] = ()  # what could not be measured here, and why

    def columns(self) -> Iterator[tuple[Measure, Of]]:
        """The measures that have a value on at least one item, in order."""
        for measure in self.measures:
            columns: tuple[Of, ...] = (
                ("reference", "candidate") if measure.per_system else ("both",)
            )
            for of in columns:
                if any((measure.name, of) in item.cells for item in self.items):
                    yield measure, of

    def rows(self) -> list[MeasureRow]:
        """Every column's mean with its interval; a column without any weight has none."""
        rows = []
        for measure, of in self.columns():
            cells = [cell for item in self.items if (cell := item.cells.get((measure.name, of)))]
            weights = [cell.weight for cell in cells]
            if sum(weights) > 0:
                values = [cell.value for cell in cells]
                interval = bootstrap_interval(values, weights, seed=self.seed)
                rows.append(MeasureRow(measure, of, len(cells), interval))
        return rows


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
