"""The result of a comparison: values item by item, and in sum with 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cosyvoice_cpu.evaluation.quality.intervals import Interval, bootstrap_interval
from cosyvoice_cpu.evaluation.quality.measures import Measure, Of
from cosyvoice_cpu.evaluation.quality.sentences import Sentence
from cosyvoice_cpu.evaluation.quality.words import WordErrors

Key = tuple[str, Of]


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
    heard: dict[Of, str] = field(default_factory=dict)
    word_errors: dict[Of, WordErrors] = field(default_factory=dict)

    def put(self, name: str, value: float, weight: float = 1.0, of: Of = "both") -> None:
        """Note a value."""
        self.cells[name, of] = Cell(value, weight)

    def average(self, others: Sequence[ItemResult]) -> None:
        """Take the mean of what further draws of the sentence have, too.

        What was heard, and its errors, stay those of the first draw.
        """
        for key, cell in self.cells.items():
            drawn = [other.cells[key].value for other in others if key in other.cells]
            if drawn:
                value = (cell.value + sum(drawn)) / (1 + len(drawn))
                self.cells[key] = Cell(value, cell.weight)


@dataclass(frozen=True)
class Row:
    """A measure over all items that have it."""

    measure: Measure
    of: Of
    items: int
    interval: Interval


@dataclass(frozen=True)
class QualityTable:
    """`reference` and `candidate` name the sides; without a reference there is one side only."""

    reference: str | None
    candidate: str
    seed: int
    measures: Sequence[Measure]
    items: Sequence[ItemResult]
    notes: Sequence[str] = ()  # what could not be measured here, and why

    def columns(self) -> Iterator[tuple[Measure, Of]]:
        """The measures that have a value on at least one item, in order."""
        for measure in self.measures:
            sides: tuple[Of, ...] = ("reference", "candidate") if measure.per_side else ("both",)
            for of in sides:
                if any((measure.name, of) in item.cells for item in self.items):
                    yield measure, of

    def rows(self) -> list[Row]:
        """Every column's mean with its interval; a column without any weight has none."""
        rows = []
        for measure, of in self.columns():
            cells = [cell for item in self.items if (cell := item.cells.get((measure.name, of)))]
            weights = [cell.weight for cell in cells]
            if sum(weights) > 0:
                values = [cell.value for cell in cells]
                interval = bootstrap_interval(values, weights, seed=self.seed)
                rows.append(Row(measure, of, len(cells), interval))
        return rows
