"""HyperPyYAML files read as data: tags become records, and nothing is imported, built or called.

The official loader (HyperPyYAML on ruamel) runs what the tags name: `!new:` builds an object,
`!apply:` calls a function. Here PyYAML composes a tree of nodes, the step before any object is
made, and the tree becomes plain values, so that a tag can never be more than a string. Scalars
follow YAML 1.2 as in the original's reader (`1e-5` is a number, `yes` is a word). `!ref` is the one
tag with a meaning: `!ref <a>` is the value of top-level key `a`, `!ref <a> * <b>` is arithmetic.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cosyvoice_cpu.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from yaml import MappingNode, ScalarNode, SequenceNode

    Node = ScalarNode | SequenceNode | MappingNode

MAX_BYTES = 1 << 18  # an official file has 6 KB
MAX_NODES = 100_000  # after aliases are expanded; an official file has about 500
MAX_TEXT = 1000  # characters of a reference, before and after its expansion
MAX_NUMBER = 1 << 53
_HINT = "copy the file again from the official model folder"
# What HyperPyYAML knows, but for `!include:`, which would read another file.
_TAGS = re.compile(r"!(new|name|apply|applyref|module):.+|!(ref|copy|tuple|PLACEHOLDER)")


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
    unknown tags, unknown or circular references, too large. Raises MissingExtraError without
    PyYAML.
    """
    text = _read_text(path)
    try:
        root = _compose(path, text)
        tree = None if root is None else _Values(path).of(root)
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


_CORE = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[str, Callable[[str], Any]]] = {
    f"{_CORE}null": (r"|~|null|Null|NULL", lambda text: None),
    f"{_CORE}bool": (r"true|True|TRUE|false|False|FALSE", lambda text: text.lower() == "true"),
    f"{_CORE}int": (r"[-+]?[0-9]{1,30}", int),
    f"{_CORE}float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        lambda text: float(re.sub(r"\.(?=[in])", "", text, flags=re.IGNORECASE)),
    ),
    f"{_CORE}str": (r"(?s:.*)", str),
}  # YAML 1.2 core schema, section 10.3.2; the first pattern that fits a plain scalar names its type
_UNTAGGED = {"scalar": _SCALARS.keys(), "sequence": {f"{_CORE}seq"}, "mapping": {f"{_CORE}map"}}


def _compose(path: Path, text: str) -> Node | None:
    try:
        import yaml
    except ImportError:
        raise MissingExtraError(
            "reading a checkpoint needs PyYAML", 'pip install "cosyvoice-cpu[export]"'
        ) from None

    class CoreLoader(yaml.BaseLoader):  # SafeLoader's types are those of YAML 1.1
        yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's own form
            None: [(tag, re.compile(rf"(?:{shape})\Z")) for tag, (shape, _) in _SCALARS.items()]
        }

    try:
        return cast("Node | None", yaml.compose(text, CoreLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f":{mark.line + 1}" if mark is not None else ""
        # a character that YAML does not allow comes with `reason` in place of `problem`
        problem = getattr(error, "problem", None) or getattr(error, "reason", "not YAML")
        raise CheckpointError(f"{path}{where}: {problem:.200}", _HINT) from None


class _Values:
    """Makes plain values of nodes; counts them so that aliases can't explode."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.nodes = 0
        self.open: list[Node] = []  # being made, outermost first

    def of(self, node: Node) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self._fail(node, f"more than {MAX_NODES} values once aliases are expanded")
        if any(node is other for other in self.open):
            raise self._fail(node, "an alias inside its own anchor")
        self.open.append(node)
        if _TAGS.fullmatch(node.tag):
            value = Tagged(node.tag, self._content(node), node.start_mark.line + 1)
        elif node.tag in _UNTAGGED[node.id]:
            value = self._content(node)
        else:
            raise self._fail(node, f"unknown tag {node.tag:.80}")
        self.open.pop()
        return value

    def _content(self, node: Node) -> Any:
        if node.id == "sequence":
            return [self.of(item) for item in node.value]
        if node.id == "mapping":
            return self._mapping(node)
        shape, convert = _SCALARS.get(node.tag, _SCALARS[f"{_CORE}str"])
        if not re.fullmatch(shape, node.value):
            raise self._fail(node, f"{node.value!r:.80} is no {node.tag.removeprefix(_CORE)}")
        return convert(node.value)

    def _mapping(self, node: Node) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key, value in node.value:
            if key.id != "scalar":
                raise self._fail(key, "a key must be a plain word")
            if key.value in values:
                raise self._fail(key, f"duplicate key {key.value!r:.80}")
            values[key.value] = self.of(value)
        return values

    def _fail(self, node: Node, problem: str) -> CheckpointError:
        return CheckpointError(f"{self.path}:{node.start_mark.line + 1}: {problem}", _HINT)


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
