"""HyperPyYAML files read as data: tags become records, and nothing is imported, built or called.

The official loader (HyperPyYAML on ruamel) runs what the tags name: `!new:` builds an object,
`!apply:` calls a function. Here PyYAML composes a tree of nodes, the step before any object is
made, and the tree becomes plain values, so that a tag can never be more than a string. Scalars
follow YAML 1.2 as in the original's reader (`1e-5` is a number, `yes` is a word).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cosyvoice_cpu.checkpoint.yaml_references import COPY_AGAIN, Tagged, resolve_references
from cosyvoice_cpu.errors import CheckpointError, library_error

if TYPE_CHECKING:
    from yaml import MappingNode, ScalarNode, SequenceNode

    Node = ScalarNode | SequenceNode | MappingNode

MAX_BYTES = 1 << 18  # an official file has 6 KB
MAX_NODES = 100_000  # after aliases are expanded; an official file has about 500
# What HyperPyYAML knows, but for `!include:`, which would read another file.
_TAGS = re.compile(r"!(new|name|apply|applyref|module):.+|!(ref|copy|tuple|PLACEHOLDER)")


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
            raise CheckpointError(f"{path} is not a YAML mapping", COPY_AGAIN)
        return resolve_references(path, tree)
    except RecursionError:
        raise CheckpointError(f"{path} is nested too deeply", COPY_AGAIN) from None


def _read_text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise CheckpointError(f"{path} is larger than {MAX_BYTES} bytes", COPY_AGAIN)
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CheckpointError(
            f"{path} is not UTF-8 text (byte {error.start})", COPY_AGAIN
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}", COPY_AGAIN) from None


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
    except ImportError as error:
        raise library_error(error, "reading a checkpoint needs PyYAML") from None

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
        raise CheckpointError(f"{path}{where}: {problem:.200}", COPY_AGAIN) from None


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
        return CheckpointError(f"{self.path}:{node.start_mark.line + 1}: {problem}", COPY_AGAIN)
