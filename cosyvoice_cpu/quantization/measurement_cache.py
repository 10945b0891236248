"""What a quantization has measured so far, kept until its bundle is written.

Measuring takes most of the time, so every value goes to the user's cache folder as soon as it is
there, under the digest of all that it depends on. A run that was killed goes on where it stopped;
one with another recipe, other calibration data or another bundle finds nothing that fits and starts
afresh. Without a writable cache nothing is kept and everything works.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import onnxruntime as ort
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.bundle.manifest import Manifest, dump_manifest
from cosyvoice_cpu.errors import OutputError
from cosyvoice_cpu.system.cache_folder import cache_folder, read_cached
from cosyvoice_cpu.utterances import Utterance

T = TypeVar("T")
Arrays = dict[str, NDArray[np.generic]]

_MOST_BYTES = 1 << 32
_KEPT_SECONDS = 7 * 24 * 3600.0  # of a run that was not resumed


class MeasurementCache:
    """Values and arrays by what they depend on; `reused` counts those of an earlier run."""

    def __init__(self, manifest: Manifest) -> None:
        """What is known about the bundle with this manifest, which holds all files' digests."""
        self._folder: Path | None = None
        if cache := cache_folder():
            name = digest_of(dump_manifest(manifest), __version__, ort.__version__)[:32]
            self._folder = cache / "quantize" / name
            _remove_stale(self._folder.parent)
        self._own: set[str] = set()
        self.reused = 0

    def values(self, key: str, compute: Callable[[], Mapping[str, float]]) -> dict[str, float]:
        """The numbers under `key`, computed unless they are there."""
        content = self._read(f"{key}.json")
        if content is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                return self._known(key, msgspec.json.decode(content, type=dict[str, float]))
        found = dict(compute())
        self._write(f"{key}.json", msgspec.json.encode(found))
        return found

    def arrays(self, key: str, compute: Callable[[], Mapping[str, NDArray[np.generic]]]) -> Arrays:
        """The arrays under `key`, computed unless they are there."""
        content = self._read(f"{key}.safetensors")
        if content is not None:
            with contextlib.suppress(SafetensorError):
                return self._known(key, safetensors.numpy.load(content))
        found = {name: np.ascontiguousarray(array) for name, array in compute().items()}
        self._write(f"{key}.safetensors", safetensors.numpy.save(found))
        return found

    def clear(self) -> None:
        """Remove what is kept about this bundle: its result is written."""
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _known(self, key: str, value: T) -> T:
        if key not in self._own:
            self.reused += 1
        return value

    def _read(self, name: str) -> bytes | None:
        return read_cached(self._folder / name, _MOST_BYTES) if self._folder else None

    def _write(self, name: str, content: bytes) -> None:
        self._own.add(name.rpartition(".")[0])
        if self._folder is None:
            return
        with contextlib.suppress(OSError, OutputError):
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_file_atomically(self._folder / name, content)


def digest_of(*parts: object) -> str:
    """SHA-256 over arrays, bytes, and whatever JSON can hold; 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).data)
        else:
            content = part if isinstance(part, bytes) else msgspec.json.encode(part)
            digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def utterance_digest(item: Utterance) -> str:
    """Of everything that both systems are given; the name doesn't matter."""
    ids = [item.prompt_text_ids, item.text_ids, item.prompt_tokens, item.tokens]
    return digest_of(ids, item.prompt_mel, item.embedding)


def _remove_stale(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if time.time() - entry.stat().st_mtime > _KEPT_SECONDS:
                shutil.rmtree(entry.path, ignore_errors=True)
