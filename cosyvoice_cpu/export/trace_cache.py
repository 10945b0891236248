"""Traced graphs of earlier processes, in the user's cache: tracing is nine tenths of an export.

A trace follows from the network's configuration, from this package's sources and from the versions
of the libraries that trace, and holds no weights. All of them are part of its key, so nothing stale
is found; the parity check of the export compares what is found like what is traced.
"""

from __future__ import annotations

import contextlib
import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from cosyvoice_cpu import export, generations, networks
from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.errors import OutputError
from cosyvoice_cpu.system.cache_folder import cache_folder, read_cached

_TRACERS = ("torch", "onnxscript", "onnx-ir", "onnx")
_MOST_BYTES = 1 << 28  # a trace of the full size has 1 MB
_DIGEST_BYTES = hashlib.sha256().digest_size


def look_up(key: bytes) -> bytes | None:
    """The serialized graph stored under `key`; None if there is none, or none to rely on."""
    path = _path(key)
    if path is None:
        return None
    content = read_cached(path, _MOST_BYTES)
    if content is None:
        return None
    digest, model = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    return model if hashlib.sha256(model).digest() == digest else None


def store(key: bytes, model: bytes) -> None:
    """Keep a serialized graph; without a writable cache, nothing is kept."""
    path = _path(key)
    if path is None:
        return
    with contextlib.suppress(OSError, OutputError):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file_atomically(path, hashlib.sha256(model).digest() + model)


def _path(key: bytes) -> Path | None:
    folder = cache_folder()
    name = hashlib.sha256(_tracer() + key).hexdigest()
    return folder / "traces" / f"{name}.bin" if folder else None


@cache
def _tracer() -> bytes:
    """A digest of what traces: the sources of this package that take part, and the libraries."""
    digest = hashlib.sha256(repr([(name, version(name)) for name in _TRACERS]).encode())
    for package in (export, generations, networks):
        for path in sorted(Path(package.__path__[0]).rglob("*.py")):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.digest()
