"""What a foreign ONNX graph is made of, looked at before an engine opens it.

The two models that look at a clip come with the checkpoint and run as they are. An engine works
while it loads: it inlines functions, which may call each other in doubling numbers, and computes
what is constant, loops included. No model of this kind needs either.
Source: onnx/onnx.proto3 in the ONNX repository.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Final

from cosyvoice_cpu.bundle.paths import READ_ONLY
from cosyvoice_cpu.bundle.protobuf import (
    Field,
    MalformedError,
    as_text,
    expect_message,
    read_fields,
)

_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_LOOPS: Final = frozenset({"Loop", "Scan", "SequenceMap"})
_MOST_NODES = 100_000
_DEEPEST = 8  # graphs inside branches

# Field numbers
_GRAPH, _TRAINING, _FUNCTIONS = 7, 20, 25  # of ModelProto
_NODE = 1  # of GraphProto
_OPERATOR, _ATTRIBUTE, _DOMAIN = 4, 5, 7  # of NodeProto
_SUBGRAPH, _SUBGRAPHS = 6, 11  # of AttributeProto


class ForeignGraphError(ValueError):
    """The graph may not be opened; the text completes "PATH ..."."""


def require_plain_graph(path: Path) -> None:
    """Raises: ForeignGraphError for functions, loops, unknown operators or no graph at all.

    OSError if the file can't be read.
    """
    with open(os.open(path, READ_ONLY), "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise ForeignGraphError("is empty")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                _Walk(content).model()
            except MalformedError as error:
                raise ForeignGraphError(f"is no ONNX model ({error})") from None


class _Walk:
    """One walk over a model's nodes; weights are stepped over."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._nodes = 0

    def model(self) -> None:
        wanted = {_GRAPH, _TRAINING, _FUNCTIONS}
        found = False
        for field in read_fields(self._content, 0, len(self._content), wanted):
            expect_message(field)
            if field.number != _GRAPH:
                kind = "functions" if field.number == _FUNCTIONS else "training steps"
                raise ForeignGraphError(f"has {kind} of its own, which no official model has")
            found = True
            self._graph(field, 0)
        if not found:
            raise MalformedError("it holds no graph")

    def _graph(self, graph: Field, depth: int) -> None:
        if depth > _DEEPEST:
            raise ForeignGraphError(f"has branches nested over {_DEEPEST} deep")
        for node in read_fields(self._content, graph.low, graph.high, {_NODE}):
            expect_message(node)
            self._nodes += 1
            if self._nodes > _MOST_NODES:
                raise ForeignGraphError(f"has over {_MOST_NODES} nodes")
            self._node(node, depth)

    def _node(self, node: Field, depth: int) -> None:
        wanted = {_OPERATOR, _ATTRIBUTE, _DOMAIN}
        for part in read_fields(self._content, node.low, node.high, wanted):
            if part.number == _ATTRIBUTE:
                expect_message(part)
                wanted_graphs = {_SUBGRAPH, _SUBGRAPHS}
                for graph in read_fields(self._content, part.low, part.high, wanted_graphs):
                    expect_message(graph)
                    self._graph(graph, depth + 1)
                continue
            name = as_text(self._content, part)
            if part.number == _OPERATOR and name in _LOOPS:
                raise ForeignGraphError(f"has the operator {name}, which no official model has")
            if part.number == _DOMAIN and name not in _DOMAINS:
                raise ForeignGraphError(f"has operators of the unknown domain {name!r:.80}")
