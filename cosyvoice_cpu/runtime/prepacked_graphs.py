"""Graphs with the weights as kernels want them, kept in the user's cache and mapped by all.

ONNX Runtime repacks integer weights when a session opens: a second at full size, into memory of the
process. It can write down what it packed, and map that the next time. Such a file is good for one
version of it on one kind of processor, so it belongs neither into a bundle nor to another machine.

    CACHE/prepacked/KEY/GRAPH.onnx   a graph of the component that KEY stands for
                        DIGEST.bin   weights; graphs of other sizes refer to the same file
                        GRAPH.json   what belongs to the graph, as it was when it was written

KEY is a digest of the component's files, ONNX Runtime's version and the processor. Files are looked
at like those of a bundle: read again only when their times or sizes differ from the record's. What
others could have written is not used. Whatever fails, graphs open without the cache, as before.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from cosyvoice_cpu.bundle.atomic import fsync_file, fsync_folder, hold, write_file_atomically
from cosyvoice_cpu.bundle.digests import sha256_of
from cosyvoice_cpu.bundle.external_data import StoredTensor, relocated, stored_tensors
from cosyvoice_cpu.bundle.manifest import Component
from cosyvoice_cpu.bundle.stale_files import partial_folder
from cosyvoice_cpu.bundle.verification_cache import FileState, state_of
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.system.cache_folder import cache_folder, is_private, read_cached
from cosyvoice_cpu.system.heaps import give_back_freed
from cosyvoice_cpu.system.machine import processor_identity

log = logging.getLogger(__name__)

MOST_VARIABLE: Final = "COSYVOICE_CPU_PREPACKED_GB"
_MOST_GB = 5.0  # two models of the official size
_FOLDER = "prepacked"
_VERSION = 2
_WRITTEN = "weights.bin"  # the name under which ONNX Runtime writes
_ALIGNMENT = 4096  # of buffers in a file that is mapped
_LARGEST_RECORD = 2**22  # bytes
_GROWTH = 2.2  # both forms of the weights, against what the bundle has

Save = Callable[[Path, str], None]
"""Writes the prepacked graph to a path, its weights beside it under the name."""


class _Home(NamedTuple):
    """Where a tensor and its forms lie: a file, and the offset of each."""

    file: str
    offsets: tuple[int, ...]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    graph: FileState
    weights: dict[str, FileState]  # all files that the graph refers to
    tensors: dict[str, _Home]  # by digest of name and content


class PrepackedGraphs:
    """The prepacked graphs of one component of a bundle. Several processes may use them."""

    def __init__(self, component: Component, engine: str) -> None:
        """`engine` is the engine's name and version."""
        digest = hashlib.sha256(f"{_VERSION} {engine} {processor_identity()}".encode())
        for entry in component.files:
            digest.update(f"\n{entry.path} {entry.sha256}".encode())
        weights = sum(entry.size for entry in component.files if not entry.path.endswith(".onnx"))
        self._most_bytes = int(weights * _GROWTH)  # that a graph may take
        root = cache_folder()
        self._root = root / _FOLDER if root else None
        self._folder = self._root / digest.hexdigest()[:32] if self._root else None

    def find(self, name: str) -> Path | None:
        """The graph of the bundle's file `name`, None if there is none that can be relied on."""
        if self._folder is None or not most_bytes() or self._record(name) is None:
            return None
        with contextlib.suppress(OSError):
            os.utime(self._folder)  # what was used last is dropped last
        return self._folder / name

    def make(self, name: str, save: Save) -> Path | None:
        """The same, made with `save` if it isn't there; None where it can't be kept.

        While another process makes one of this component there is none.
        """
        if found := self.find(name):
            return found
        if self._folder is None or self._root is None or not self._has_room():
            return None
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            held = hold(self._folder)
            if held is None:
                return None
            try:
                with partial_folder(self._folder) as scratch:
                    save(scratch / name, _WRITTEN)
                    self._keep(name, scratch)
            finally:
                os.close(held)
                give_back_freed()  # the packed weights, as large as those that are mapped
            self._drop_oldest()
        except Exception as error:  # a full disk in whoever's words: the graph opens without it
            log.info("%s is not kept prepacked: %s", name, error)
            return None
        return self.find(name)

    def _keep(self, name: str, scratch: Path) -> None:
        """Move the graph and those of its weights that are not here yet into the folder."""
        assert self._folder is not None
        graph = (scratch / name).read_bytes()
        tensors = {_digest(scratch / _WRITTEN, tensor): tensor for tensor in stored_tensors(graph)}
        known, states = self._known()
        new = {key: tensor for key, tensor in tensors.items() if key not in known}
        homes = dict(known)
        own: dict[str, _Home] = {}
        if new:
            path, sha256, own = _own(scratch, new, len(new) == len(tensors))
            homes |= own
            # Also over a file of that name: it may be damaged, and whoever has it open keeps it.
            os.replace(path, self._folder / path.name)
            fsync_folder(self._folder)
            states[path.name] = state_of((self._folder / path.name).stat(), sha256)
        by_name = {tensor.name: homes[key] for key, tensor in tensors.items()}
        placed = relocated(graph, lambda tensor: tensor.moved(*by_name[tensor.name]))
        write_file_atomically(self._folder / name, placed)
        status = (self._folder / name).stat()
        record = _Record(
            version=_VERSION,
            graph=state_of(status, hashlib.sha256(placed).hexdigest()),
            weights={home.file: states[home.file] for home in by_name.values()},
            tensors=own,
        )
        write_file_atomically(self._record_path(name), msgspec.json.encode(record))

    def _record(self, name: str) -> _Record | None:
        """The record of a graph whose files are what it says."""
        assert self._folder is not None and self._root is not None
        try:
            private = (self._root.parent, self._root, self._folder)
            if not all(is_private(folder.stat()) for folder in private):
                return None
            content = read_cached(self._record_path(name), _LARGEST_RECORD)
            record = msgspec.json.decode(content or b"", type=_Record)
        except (OSError, ValueError, msgspec.MsgspecError, RecursionError):
            return None
        if record.version != _VERSION:
            return None
        states = {name: record.graph, **record.weights}
        now = {file: _still(self._folder / file, state) for file, state in states.items()}
        if None in now.values():
            return None
        if now != states:  # touched, or copied
            found = {file: state for file, state in now.items() if state is not None}
            graph = found.pop(name)
            record = msgspec.structs.replace(record, graph=graph, weights=found)
            with contextlib.suppress(Exception):  # they are read again the next time
                write_file_atomically(self._record_path(name), msgspec.json.encode(record))
        return record

    def _record_path(self, name: str) -> Path:
        assert self._folder is not None
        return (self._folder / name).with_suffix(".json")

    def _known(self) -> tuple[dict[str, _Home], dict[str, FileState]]:
        """Where the tensors of graphs lie that are here already, and the states of the files."""
        assert self._folder is not None
        homes: dict[str, _Home] = {}
        states: dict[str, FileState] = {}
        for path in sorted(self._folder.glob("*.json")):
            if record := self._record(path.with_suffix(".onnx").name):
                homes |= record.tensors
                states |= record.weights
        return homes, states

    def _has_room(self) -> bool:
        assert self._root is not None
        with contextlib.suppress(OSError):
            there = next(path for path in (self._root, *self._root.parents) if path.exists())
            free = shutil.disk_usage(there).free
            return self._most_bytes <= most_bytes() and 2 * self._most_bytes <= free
        return False

    def _drop_oldest(self) -> None:
        """Drop the components that were used longest ago, until what is left fits."""
        assert self._root is not None
        folders = [path for path in self._root.iterdir() if not path.name.startswith(".")]
        left = most_bytes()
        for folder in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True):
            left -= _bytes_of(folder.iterdir())
            if left < 0 and folder != self._folder:
                shutil.rmtree(folder, ignore_errors=True)


def most_bytes() -> int:
    """What all prepacked graphs may take together: COSYVOICE_CPU_PREPACKED_GB; 0 keeps none."""
    try:
        return int(float(os.environ.get(MOST_VARIABLE, _MOST_GB)) * 1e9)
    except (ValueError, OverflowError):
        return int(_MOST_GB * 1e9)


def why_not_kept() -> str | None:
    """Why nothing can be kept for this user, None if it can."""
    root = cache_folder()
    if root is None:
        return "this user has no cache folder"
    if not most_bytes():
        return f"{MOST_VARIABLE} is 0"
    there = next((path for path in (root, *root.parents) if path.is_dir()), root)
    if not os.access(there, os.W_OK | os.X_OK):
        return f"{there} can't be written"
    if there == root and not is_private(root.stat()):
        return f"{root} is another user's, or others may write there"
    return None


def _bytes_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


def _still(path: Path, state: FileState) -> FileState | None:
    """The file's state if its content is that of `state`, None if it can't be relied on."""
    try:
        status = path.lstat()
        if not is_private(status):
            return None
        if state_of(status, state.sha256) == state:
            return state
        same = status.st_size == state.size and sha256_of(path) == state.sha256
        return state_of(status, state.sha256) if same else None
    except (OSError, BundleError):
        return None


def _digest(file: Path, tensor: StoredTensor) -> str:
    """Of a tensor's name, its content, and what its kernels made of it."""
    digest = hashlib.sha256(tensor.name.encode())
    digest.update(repr([(form.key, len(form.buffers)) for form in tensor.packed]).encode())
    with file.open("rb") as content:
        for extent in tensor.extents:
            digest.update(f"{extent.length} {extent.flag}".encode())
            content.seek(extent.offset)
            digest.update(content.read(extent.length))
    return digest.hexdigest()


def _own(
    scratch: Path, tensors: dict[str, StoredTensor], are_all: bool
) -> tuple[Path, str, dict[str, _Home]]:
    """A file of these tensors in `scratch`, named by its digest; that; where each lies in it.

    If they are all that was written, the file is the one that was written.
    """
    path = scratch / _WRITTEN
    offsets = {key: tuple(e.offset for e in tensor.extents) for key, tensor in tensors.items()}
    if not are_all:
        path = scratch / "own.bin"
        with (scratch / _WRITTEN).open("rb") as source, path.open("wb") as target:
            for key, tensor in tensors.items():
                offsets[key] = tuple(_append(source, target, *e[:2]) for e in tensor.extents)
    fsync_file(path)
    sha256 = sha256_of(path)
    named = path.with_name(f"{sha256[:32]}.bin")
    os.replace(path, named)
    return named, sha256, {key: _Home(named.name, at) for key, at in offsets.items()}


def _append(source: BinaryIO, target: BinaryIO, offset: int, length: int) -> int:
    """Copy bytes to the end, aligned; returns where they begin."""
    start = -(-target.tell() // _ALIGNMENT) * _ALIGNMENT
    target.seek(start)
    source.seek(offset)
    target.write(source.read(length))
    return start
