"""Speech LM on ONNX Runtime: one graph for prefill and decode, KV cache in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SpeechIds
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import SynthesisError, TextError
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable
from cosyvoice_cpu.runtime.sessions import holds_integers, open_session

_FIRST_CAPACITY = 512  # positions; a sentence of 10 s with its prompt


class EmbeddingRows:
    """The tables of text and speech, which no graph reads."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises: BundleError if the component or a table is missing."""
        weights = bundle.file("speech_lm", "weights.safetensors")
        self._ids: SpeechIds = bundle.manifest.synthesis.special_ids
        self._text = EmbeddingTable(weights, "text_embedding")
        self._speech = EmbeddingTable(weights, "speech_embedding")

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
        _require_within(text, self._text.shape[0], "text", TextError)
        _require_within(speech_ids, self._speech.shape[0], "speech", SynthesisError)
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


class SpeechLMEngine(EmbeddingRows):
    """Session and tables; utterances are `start()`ed on it one at a time or side by side."""

    def __init__(self, bundle: Bundle, threads: int) -> None:
        """Raises: BundleError if the component is missing or the engine refuses it."""
        super().__init__(bundle)
        self._session = open_session(
            bundle.file("speech_lm", "speech_lm.onnx"),
            threads,
            prepack=holds_integers(bundle.component("speech_lm")),
        )
        cache = {
            entry.name: entry.shape
            for entry in self._session.get_inputs()
            if entry.name.startswith("past_key_")
        }
        self._layers = len(cache)
        _, self._kv_heads, _, self._head_dim = cache["past_key_0"]

    def start(self) -> LMUtterance:
        """An empty KV cache on this session."""
        return LMUtterance(self, self._session, self._layers, self._kv_heads, self._head_dim)


class LMUtterance:
    """One utterance: its KV cache, as buffers that the graph reads and writes in place.

    Implements `synthesis.decoding.SpeechLMSession`.
    """

    def __init__(
        self, engine: SpeechLMEngine, session: Any, layers: int, kv_heads: int, head_dim: int
    ) -> None:
        self._engine = engine
        self._session = session
        self._names = [f"{part}_{i}" for i in range(layers) for part in ("key", "value")]
        self._shape = (1, kv_heads, 0, head_dim)
        self._cache: dict[str, NDArray[np.float32]] = {}
        self._capacity = 0
        self._length = 0
        self._binding = session.io_binding()

    def prefill(
        self,
        text_ids: Sequence[int],
        prompt_text_ids: Sequence[int],
        prompt_speech_ids: Sequence[int],
    ) -> Floats:
        """Logits [rows] of the first token."""
        rows = self._engine.rows(text_ids, prompt_text_ids, prompt_speech_ids)
        first: Floats = self.append(rows, wanted=1)[0]
        return first

    def step(self, token_id: int) -> Floats:
        """Logits [rows] of the token after `token_id`."""
        following: Floats = self.append(self._engine.speech_row(token_id), wanted=1)[0]
        return following

    def append(self, rows: Floats, wanted: int) -> Floats:
        """Read embedding rows [S, hidden]; logits [wanted, table rows] of the last `wanted`."""
        count = len(rows)
        total = self._length + count
        self._reserve(total)
        binding = self._binding
        binding.bind_cpu_input("inputs_embeds", np.ascontiguousarray(rows[None]))
        binding.bind_cpu_input("rows", np.arange(count - wanted, count))
        binding.bind_cpu_input("last_position", np.array([total - 1], np.int32))
        binding.bind_cpu_input("total_length", np.array([total], np.int32))
        binding.bind_output("logits")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise SynthesisError(
                f"the speech LM fails at {total} positions ({str(error).splitlines()[0][:300]})",
                "give shorter texts; if that doesn't help, export the checkpoint again",
            ) from error
        self._length = total
        logits: Floats = binding.get_outputs()[-1].numpy()
        return logits

    def _reserve(self, positions: int) -> None:
        """Grow the buffers by doubling; a decoded token writes one row and copies nothing."""
        if positions <= self._capacity:
            return
        capacity = max(_FIRST_CAPACITY, self._capacity)
        while capacity < positions:
            capacity *= 2
        shape = (*self._shape[:2], capacity, self._shape[3])
        for name in self._names:
            buffer = np.zeros(shape, np.float32)
            if self._length:
                buffer[:, :, : self._length] = self._cache[name][:, :, : self._length]
            self._cache[name] = buffer
        self._capacity = capacity
        # Bound anew: the binding holds addresses. Past and present are the same memory.
        self._binding = self._session.io_binding()
        for name in self._names:
            value = ort.OrtValue.ortvalue_from_numpy(self._cache[name])
            self._binding.bind_ortvalue_input(f"past_{name}", value)
            self._binding.bind_ortvalue_output(f"present_{name}", value)


def _require_within(
    ids: Sequence[int], rows: int, kind: str, error: type[TextError] | type[SynthesisError]
) -> None:
    outside = [i for i in ids if not 0 <= i < rows]
    if outside:
        raise error(
            f"{kind} id {outside[0]} is outside the model's {rows}",
            "were these ids made for another model?",
        )
