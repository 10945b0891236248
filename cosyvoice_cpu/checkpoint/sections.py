"""Typed look-ups in a configuration file, with errors that name file and entry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosyvoice_cpu.checkpoint.yaml_references import Tagged
from cosyvoice_cpu.errors import CheckpointError

MAX_SIZE = 1 << 24
MAX_LAYERS = 1000  # more would only make the list of expected tensors endless

_HINT = "take the file from the official model folder; sizes are read, never guessed"


@dataclass(frozen=True)
class Section:
    """One mapping of a YAML or JSON file and the dotted path that leads to it."""

    file: Path
    values: dict[str, Any]
    path: str = ""
    target: str = ""  # class or function named by the mapping's tag

    def name(self, key: str) -> str:
        """`key` with the path before it, as in `flow.decoder.estimator.depth`."""
        return f"{self.path}.{key}" if self.path else key

    def fail(self, key: str, problem: str) -> CheckpointError:
        """The error that says what is wrong with one entry."""
        return CheckpointError(f"{self.file}: {self.name(key)} {problem}", _HINT)

    def value(self, key: str) -> Any:
        """The entry as it is. Raises CheckpointError where it is missing."""
        if key not in self.values:
            raise self.fail(key, "is missing")
        return self.values[key]

    def section(self, key: str) -> Section:
        """The mapping under `key`, tagged or not."""
        value, target = self.value(key), ""
        if isinstance(value, Tagged):
            value, target = value.value, value.target
        if not isinstance(value, dict):
            raise self.fail(key, f"should be a mapping, not {value!r:.60}")
        return Section(self.file, value, self.name(key), target)

    def integer(self, key: str, maximum: int = MAX_SIZE) -> int:
        """A whole number from 1 to `maximum`."""
        value = self.value(key)
        if type(value) is not int or not 1 <= value <= maximum:
            raise self.fail(key, f"should be a whole number, 1 to {maximum}, not {value!r:.60}")
        return value

    def number(self, key: str) -> float:
        """A finite number."""
        value = self.value(key)
        if type(value) not in (int, float) or not math.isfinite(value):
            raise self.fail(key, f"should be a number, not {value!r:.60}")
        return float(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """A list of positive whole numbers, not empty."""
        return self._integers(key, self.value(key))

    def integer_lists(self, key: str) -> tuple[tuple[int, ...], ...]:
        """A list of lists of positive whole numbers, none empty."""
        value = self.value(key)
        if not isinstance(value, list) or not value:
            raise self.fail(key, f"should be a list of lists, not {value!r:.60}")
        return tuple(self._integers(key, item) for item in value)

    def _integers(self, key: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not value:
            raise self.fail(key, f"should be a list of whole numbers, not {value!r:.60}")
        if any(type(item) is not int or not 1 <= item <= MAX_SIZE for item in value):
            raise self.fail(key, f"should hold whole numbers from 1, not {value!r:.60}")
        return tuple(value)

    def require(self, key: str, expected: Any) -> None:
        """Refuses an entry whose value the networks here do not implement."""
        value = self.value(key)
        if value != expected or isinstance(value, bool) != isinstance(expected, bool):
            raise self.fail(key, f"is {value!r:.60}; this model needs {expected!r}")

    def require_target(self, key: str, expected: str) -> None:
        """Refuses an entry that builds another class than `expected`."""
        value = self.value(key)
        target = value.target if isinstance(value, Tagged) else None
        if target != expected:
            raise self.fail(key, f"is {target or 'untagged'}; this model needs {expected}")
