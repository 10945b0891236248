"""What the speech LM is fed, whatever engine runs it: embedding rows, and its KV cache in place."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SpeechIds
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.decoding.ids import require_speech_ids, require_text_ids
from cosyvoice_cpu.errors import BundleError, SynthesisError, first_line
from cosyvoice_cpu.generations import TensorSpec
from cosyvoice_cpu.generations.components import WEIGHTS_FILE, Arrays, CacheSpec
from cosyvoice_cpu.runtime.consistency import require_shapes
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable
from cosyvoice_cpu.runtime.graph import Graph
from cosyvoice_cpu.runtime.ladder import ComponentGraphs

_FIRST_CAPACITY = 512  # positions; a sentence of 10 s with its prompt


class EmbeddingRows:
    """The tables of text and speech, which no graph reads."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises: BundleError if the component or a table is missing, or the bundle changed."""
        weights = bundle.file("speech_lm", WEIGHTS_FILE)
        self._ids: SpeechIds = bundle.manifest.synthesis.special_ids
        with bundle.unchanged("speech_lm"):
            self._text = EmbeddingTable(weights, "text_embedding")
            self._speech = EmbeddingTable(weights, "speech_embedding")
        rows, width = self._speech.shape
        if self._text.shape[1] != width:
            raise BundleError(
                f"{weights}: tables of width {self._text.shape[1]} and {width}",
                "export the checkpoint again",
            )
        ids = self._ids
        highest = max(
            *(bundle.manifest.synthesis.speech_vocabulary - 1, ids.sos, ids.task),
            *(ids.original_banned, ids.stop_first + ids.stop_count - 1),
        )
        if highest >= rows:
            raise BundleError(
                f"{weights}: the speech table has {rows} rows, the manifest's ids go up to "
                f"{highest}",
                "the manifest was changed or is of another model; get the bundle again",
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows of the speech table, and the width of both."""
        return self._speech.shape

    def rows(
        self,
        text_ids: Sequence[int],
        prompt_text_ids: Sequence[int],
        speech_ids: Sequence[int],
    ) -> Floats:
        """Prefill rows [2 + texts + speech, hidden]: sos | prompt text, text | task | speech.

        Raises: TextError or SynthesisError for ids outside the tables.
        """
        text = [*prompt_text_ids, *text_ids]
        require_text_ids(text, self._text.shape[0])
        require_speech_ids(speech_ids, self._speech.shape[0])
        return np.concatenate(
            [
                self._speech([self._ids.sos]),
                self._text(text),
                self._speech([self._ids.task]),
                self._speech(speech_ids),
            ]
        )

    def speech_row(self, token_id: int) -> Floats:
        """One row [1, hidden] of the speech table."""
        return self._speech([token_id])


class SpeechLMStage:
    """Graph and tables; sessions are `start()`ed on it one at a time or side by side."""

    def __init__(self, graphs: ComponentGraphs, bundle: Bundle) -> None:
        """Raises: BundleError if the engine refuses the graph, or a table is missing."""
        self.embedding = EmbeddingRows(bundle)
        self.spec = graphs.spec.graph("speech_lm")
        self.graph = graphs.open("speech_lm")
        rows, width = self.embedding.shape
        sizes = {"hidden_size": width, "speech_table_rows": rows}
        require_shapes(bundle.path / "speech_lm", self.graph, self.spec, sizes)
        self.caches = layer_caches(self.graph, self.spec.caches)

    def start(self) -> CachedSession:
        """A session with an empty KV cache."""
        return CachedSession(self)


def layer_caches(
    graph: Graph, caches: Sequence[CacheSpec]
) -> list[tuple[CacheSpec, TensorSpec, TensorSpec]]:
    """Each cache of each layer that `graph` has: its record, its input and output as they are."""
    inputs = {tensor.name: tensor for tensor in graph.inputs}
    outputs = {tensor.name: tensor for tensor in graph.outputs}
    found = []
    for cache in caches:
        for layer in count():
            past, present = cache.tensors(layer)
            if present is None or past.name not in inputs:
                break
            found.append((cache, inputs[past.name], outputs[present.name]))
    return found


class CachedSession:
    """One utterance: its KV cache, as buffers that the engine reads and writes in place.

    Implements `cosyvoice_cpu.stage_api.SpeechLMSession`. Each layer has a key and a value buffer
    [1, KV heads, capacity, head width], of which the first `length` positions have been written;
    the rest holds the initial value of the component table.
    """

    def __init__(self, stage: SpeechLMStage) -> None:
        self._stage = stage
        self._buffers: Arrays = {}  # by the past's name
        self._capacity = 0
        self._length = 0

    def prefill(
        self,
        text_ids: Sequence[int],
        prompt_text_ids: Sequence[int],
        prompt_speech_ids: Sequence[int],
    ) -> Floats:
        """Logits [rows] of the first token."""
        rows = self._stage.embedding.rows(text_ids, prompt_text_ids, prompt_speech_ids)
        first: Floats = self.append(rows, wanted=1)[0]
        return first

    def step(self, token_id: int) -> Floats:
        """Logits [rows] of the token after `token_id`."""
        row = self._stage.embedding.speech_row(token_id)
        following: Floats = self.append(row, wanted=1)[0]
        return following

    def append(self, rows: Floats, wanted: int) -> Floats:
        """Read embedding rows [S, hidden]; logits [wanted, table rows] of the last `wanted`."""
        read = len(rows)
        total = self._length + read
        self._reserve(total)
        spec = self._stage.spec
        feed = spec.feed(rows[None], np.arange(read - wanted, read), [total - 1], [total])
        try:
            (logits,) = spec.results(self._graph.run(feed))
        except Exception as error:  # engines' exceptions have no common class of their own
            raise SynthesisError(
                f"the speech LM fails at {total} positions ({first_line(error)})",
                "give shorter texts; if that doesn't help, export the checkpoint again",
            ) from error
        self._length = total
        return logits

    def _reserve(self, positions: int) -> None:
        """Grow the buffers by doubling; a decoded token writes one row and copies nothing."""
        if positions <= self._capacity:
            return
        capacity = max(_FIRST_CAPACITY, self._capacity)
        while capacity < positions:
            capacity *= 2
        present: Arrays = {}
        for cache, past, written in self._stage.caches:
            shape = [1 if isinstance(dim, str) else dim for dim in past.shape]
            shape[cache.axis] = capacity
            buffer = np.full(shape, cache.initial, past.dtype)
            if self._length:
                kept = [slice(None)] * cache.axis + [slice(self._length)]
                buffer[tuple(kept)] = self._buffers[past.name][tuple(kept)]
            self._buffers[past.name] = present[written.name] = buffer
        self._capacity = capacity
        self._graph = self._stage.graph.bind(self._buffers, present)  # anew: other memory
