"""HyperPyYAML files read as data: tags become records, and nothing is imported, built or called.

The official loader (HyperPyYAML on ruamel) runs what the tags name: `!new:` builds an object,
`!apply:` calls a function. Here the parser's events are turned into plain values directly, without
any constructor, so that a tag can never be more than a string. Scalars follow YAML 1.2 as in the
original's reader (`1e-5` is a number, `yes` is a word). `!ref` is the one tag with a meaning:
`!ref <a>` is the value of top-level key `a`, `!ref <a> * <b>` is arithmetic.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosyvoice_cpu.errors import CheckpointError, MissingExtraError

MAX_BYTES = 1 << 18  # an official file has 6 KB
MAX_NODES = 100_000  # after aliases are expanded; an official file has about 500
MAX_TEXT = 1000  # characters of a reference, before and after its expansion
MAX_NUMBER = 1 << 53

_HINT = "copy the file again from the official model folder"


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


def read_hyperpyyaml(path: Path) -> dict[str, Any]:
    """The top-level mapping of the file at `path`, references resolved.

    Values are None, bool, int, float, str, list, dict (keys are str) and `Tagged`.
    Raises CheckpointError naming file and line: not UTF-8, not YAML, not a mapping, duplicate keys,
    unknown or circular references, too large. Raises MissingExtraError without PyYAML.
    """
    text = _read_text(path)
    try:
        tree = _Composer(path, text).compose()
        if not isinstance(tree, dict):
            raise CheckpointError(f"{path} is not a YAML mapping", _HINT)
        return _References(path, tree).resolve_all()
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply", _HINT) from None


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES} bytes", _HINT)
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not UTF-8 text (byte {error.start})", _HINT) from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}", _HINT) from None


_INFINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_SCALARS: tuple[tuple[re.Pattern[str], Callable[[str], Any]], ...] = (
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]{1,30}"), int),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
    (_INFINITE, lambda text: float(text.replace(".", ""))),
)  # YAML 1.2 core schema, section 10.3.2


def _plain_scalar(text: str) -> Any:
    for pattern, convert in _SCALARS:
        if pattern.fullmatch(text):
            return convert(text)
    return text


class _Composer:
    """Builds values from the parser's events; counts nodes so that aliases can't explode."""

    def __init__(self, path: Path, text: str) -> None:
        self.path = path
        self.text = text
        self.nodes = 0
        self.anchors: dict[str, tuple[Any, int]] = {}  # name to value and number of nodes in it

    def compose(self) -> Any:
        try:
            import yaml
        except ImportError:
            raise MissingExtraError(
                "reading a checkpoint needs PyYAML", 'pip install "cosyvoice-cpu[export]"'
            ) from None
        try:
            events: Iterator[Any] = iter(yaml.parse(self.text, Loader=yaml.SafeLoader))
            if isinstance(self._after_start(events, yaml), yaml.StreamEndEvent):
                return None
            value = self._node(next(events), events, yaml)
            next(events)  # the document's end
            if not isinstance(next(events), yaml.StreamEndEvent):
                raise CheckpointError(f"{self.path} holds more than one YAML document", _HINT)
            return value
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f":{mark.line + 1}" if mark is not None else ""
            # a character that YAML does not allow comes with `reason` in place of `problem`
            problem = getattr(error, "problem", None) or getattr(error, "reason", "not YAML")
            raise CheckpointError(f"{self.path}{where}: {problem}", _HINT) from None

    @staticmethod
    def _after_start(events: Iterator[Any], yaml: Any) -> Any:
        event = next(events)
        while isinstance(event, yaml.StreamStartEvent):
            event = next(events)
        return event

    def _fail(self, event: Any, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}:{event.start_mark.line + 1}: {problem}", _HINT)

    def _count(self, event: Any, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self._fail(event, f"more than {MAX_NODES} values once aliases are expanded")

    def _node(self, event: Any, events: Iterator[Any], yaml: Any) -> Any:
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                raise self._fail(event, f"unknown or circular alias *{event.anchor}")
            value, nodes = self.anchors[event.anchor]
            self._count(event, nodes)
            return value
        before = self.nodes
        self._count(event, 1)
        if isinstance(event, yaml.ScalarEvent):
            plain = event.style is None and (event.implicit[0] or event.tag not in (None, "!"))
            value = _plain_scalar(event.value) if plain else event.value
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(events, yaml)
        else:
            value = self._mapping(events, yaml)
        if event.tag not in (None, "!"):
            value = self._tagged(event, value, yaml)
        if event.anchor is not None:
            self.anchors[event.anchor] = (value, self.nodes - before)
        return value

    @staticmethod
    def _tagged(event: Any, value: Any, yaml: Any) -> Any:
        if event.tag == "tag:yaml.org,2002:str" and isinstance(event, yaml.ScalarEvent):
            return event.value
        return Tagged(event.tag, value, event.start_mark.line + 1)

    def _sequence(self, events: Iterator[Any], yaml: Any) -> list[Any]:
        values = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            values.append(self._node(event, events, yaml))
        return values

    def _mapping(self, events: Iterator[Any], yaml: Any) -> dict[str, Any]:
        values: dict[str, Any] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._fail(event, "a key must be a plain word")
            self._count(event, 1)
            if event.value in values:
                raise self._fail(event, f"duplicate key {event.value!r}")
            values[event.value] = self._node(next(events), events, yaml)
        return values


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
        return CheckpointError(f"{self.path}:{ref.line}: !ref {ref.value!s:.80}: {problem}", _HINT)

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


def _is_arithmetic(tree: ast.expr, names: dict[str, Any]) -> bool:
    if isinstance(tree, ast.BinOp):
        sides = _is_arithmetic(tree.left, names) and _is_arithmetic(tree.right, names)
        return type(tree.op) in _OPERATIONS and sides
    if isinstance(tree, ast.UnaryOp):
        return isinstance(tree.op, ast.USub) and _is_arithmetic(tree.operand, names)
    if isinstance(tree, ast.Constant):
        return type(tree.value) in (int, float)
    return isinstance(tree, ast.Name) and tree.id in names


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
