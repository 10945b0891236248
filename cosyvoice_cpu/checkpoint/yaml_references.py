"""What tags mean in HyperPyYAML: values with a name, and references to other values.

`!ref <a>` is the value of top-level key `a`, `!ref <a> * <b>` is arithmetic on numbers, and
`!ref <a>/<b>` puts values into text. Every other tag only names its value.
Source: HyperPyYAML, hyperpyyaml/core.py, `resolve_references`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosyvoice_cpu.errors import CheckpointError

MAX_TEXT = 1000  # characters of a reference, before and after its expansion
MAX_NUMBER = 1 << 53
COPY_AGAIN = "copy the file again from the official model folder"


@dataclass(frozen=True)
class Tagged:
    """A value under a YAML tag, for instance `!new:cosyvoice.llm.llm.CosyVoice3LM`."""

    tag: str
    value: Any
    line: int

    @property
    def target(self) -> str:
        """What stands behind the tag's first colon: a class or function name, or ''."""
        return self.tag.partition(":")[2]


def resolve_references(path: Path, tree: dict[str, Any]) -> dict[str, Any]:
    """The tree of the file at `path` without `!ref`.

    Raises: CheckpointError naming the reference: unknown, circular, or no arithmetic of numbers.
    """
    return _References(path, tree).resolve_all()


class _References:
    """Replaces every `!ref` by what it refers to, each top-level key once."""

    def __init__(self, path: Path, tree: dict[str, Any]) -> None:
        self.path = path
        self.tree = tree
        self.done: dict[str, Any] = {}
        self.open: list[str] = []  # keys being resolved, outermost first

    def resolve_all(self) -> dict[str, Any]:
        return {name: self._key(name) for name in self.tree}

    def _key(self, name: str) -> Any:
        if name not in self.done:
            self.open.append(name)
            self.done[name] = self._value(self.tree[name])
            self.open.pop()
        return self.done[name]

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {key: self._value(item) for key, item in value.items()}
        if isinstance(value, Tagged):
            if value.tag == "!ref":
                return self._reference(value)
            return Tagged(value.tag, self._value(value.value), value.line)
        return value

    def _fail(self, ref: Tagged, problem: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path}:{ref.line}: !ref {ref.value!s:.80}: {problem}", COPY_AGAIN
        )

    def _reference(self, ref: Tagged) -> Any:
        if not isinstance(ref.value, str):
            raise self._fail(ref, "a reference is written <name>")
        if len(ref.value) > MAX_TEXT:
            raise self._fail(ref, f"is longer than {MAX_TEXT} characters")
        names = re.findall(r"<([^<>]*)>", ref.value)
        if not names:
            raise self._fail(ref, "a reference is written <name>")
        values = []
        for name in names:
            if name not in self.tree:
                raise self._fail(ref, f"no top-level key {name!r}")
            if name in self.open:
                raise self._fail(ref, "refers to itself: " + " -> ".join([*self.open, name]))
            values.append(self._key(name))
        if ref.value.strip() == f"<{names[0]}>":
            return values[0]
        return self._expression(ref, values)

    def _expression(self, ref: Tagged, values: list[Any]) -> Any:
        """Arithmetic where the text is arithmetic, else the text with the values put in."""
        numbered = iter(range(len(values)))
        text = re.sub(r"<[^<>]*>", lambda match: f"ref_{next(numbered)}", ref.value)
        names = {f"ref_{index}": value for index, value in enumerate(values)}
        try:
            tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError):
            tree = None
        if tree is not None and _is_arithmetic(tree, names):
            try:
                return _arithmetic(tree, names)
            except (TypeError, ZeroDivisionError, OverflowError) as error:
                raise self._fail(ref, str(error)) from None
        if not all(isinstance(value, (str, int, float)) for value in values):
            raise self._fail(ref, "only numbers and text can be part of an expression")
        remaining = iter(values)
        joined: str = re.sub(r"<[^<>]*>", lambda match: str(next(remaining)), ref.value)
        if len(joined) > MAX_TEXT:
            raise self._fail(ref, f"expands to more than {MAX_TEXT} characters")
        return joined


_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}
_ARITHMETIC = {*_OPERATIONS, ast.BinOp, ast.UnaryOp, ast.USub, ast.Load}


def _is_arithmetic(tree: ast.expr, names: dict[str, Any]) -> bool:
    """Whether it is made of numbers, `names` and the four operations alone, whatever the values."""
    return all(
        type(node) in _ARITHMETIC
        or (isinstance(node, ast.Constant) and type(node.value) in (int, float))
        or (isinstance(node, ast.Name) and node.id in names)
        for node in ast.walk(tree)
    )


def _arithmetic(tree: ast.expr, names: dict[str, Any]) -> int | float:
    if isinstance(tree, ast.BinOp):
        left, right = _arithmetic(tree.left, names), _arithmetic(tree.right, names)
        return _bounded(_OPERATIONS[type(tree.op)](left, right))
    if isinstance(tree, ast.UnaryOp):
        return -_arithmetic(tree.operand, names)
    if isinstance(tree, ast.Constant):
        return _bounded(tree.value)
    assert isinstance(tree, ast.Name)
    return _bounded(names[tree.id])


def _bounded(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is not a number")
    if not abs(value) <= MAX_NUMBER:
        raise OverflowError("the result is too large")
    return value
