"""What the flow computes of a speaker's prompt, kept for all requests of that speaker.

Streams need it, and whole speech with a preset whose prompt is "cached".

At full size a second of prompt takes 90 MB at ten solver steps, so few speakers are kept.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverPreset

Halves = NDArray[np.float16]

KEPT_BYTES = 1 << 30  # two prompts of 5 s at full size


@dataclass(frozen=True)
class PromptPast:
    """What a stream attends to of a speaker's prompt. Shared by all streams, never written to."""

    frames: int  # whole chunks
    # For each evaluation of the solver [layers, key and value, rows, heads, frames, dim_head]
    attended: Sequence[Halves]
    history: Sequence[Floats]  # the same: [2 convolutions, rows, channels, taps before]

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        halves = sum(array.nbytes for array in self.attended)
        return halves + sum(array.nbytes for array in self.history)


class PromptPasts:
    """The pasts of the prompts that were used last, as far as they fit; the last one always.

    May be used from several threads: a prompt is computed once, and who needs it waits.
    """

    def __init__(self, most_bytes: int = KEPT_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[bytes, bool, bytes], PromptPast] = OrderedDict()
        self._lock = threading.Lock()

    def get(
        self,
        prompt_tokens: Sequence[int],
        prompt_mel: Floats,
        embedding: Floats,
        exact: bool,
        preset: SolverPreset,
        make: Callable[[bytes], PromptPast],
    ) -> PromptPast:
        """The past of this prompt, exact or not, as `preset` solves; `make` gives by the prompt's
        digest what is not kept.
        """
        voice = prompt_digest(prompt_tokens, prompt_mel, embedding)
        key = _key(voice, exact, preset)
        with self._lock:
            past = self._kept.pop(key, None)
            if past is None:
                past = make(voice)
            self._kept[key] = past
            while len(self._kept) > 1 and self._bytes > self._most_bytes:
                self._kept.popitem(last=False)
            return past

    def has(self, voice: bytes, exact: bool, preset: SolverPreset) -> bool:
        """Whether `get` would find the prompt with the digest `voice`."""
        with self._lock:
            return _key(voice, exact, preset) in self._kept

    def clear(self) -> None:
        """Forget all of them; streams that use one keep it."""
        with self._lock:
            self._kept.clear()

    @property
    def _bytes(self) -> int:
        return sum(past.nbytes for past in self._kept.values())


def _key(voice: bytes, exact: bool, preset: SolverPreset) -> tuple[bytes, bool, bytes]:
    return voice, exact, preset_digest(preset)


def preset_digest(preset: SolverPreset) -> bytes:
    """What tells solvers apart that see a prompt alone: a stream's, and those of whole speech."""
    alone = msgspec.structs.replace(preset, prompt="cached")
    return hashlib.sha256(repr(alone).encode()).digest()


def prompt_digest(prompt_tokens: Sequence[int], prompt_mel: Floats, embedding: Floats) -> bytes:
    """What tells prompts apart."""
    digest = hashlib.sha256(np.asarray(prompt_tokens, np.int64).tobytes())
    for array in (prompt_mel, embedding):
        digest.update(repr(array.shape).encode())
        digest.update(np.ascontiguousarray(array, np.float32).tobytes())
    return digest.digest()
