"""Files of `torch.save`, read without `torch.load`: nothing in them is ever executed.

Both readers of such files, of state dicts and of saved speakers, go through here. A file is a zip
of stored entries: the numbers of each storage, and a small program that says which tensors are made
of them. A tensor is a view of the mapped file, so reading takes no more than that program does;
what would be larger than the file is refused.
Source: PyTorch torch/serialization.py, `_save` and `_load`.
"""

from __future__ import annotations

import math
import mmap
import stat
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cosyvoice_cpu.checkpoint.pickled_tensors import (
    MAX_BYTES,
    MalformedPickleError,
    OtherTensor,
    PythonObjectsError,
    Storage,
    Strided,
    read_pickled_tensors,
)
from cosyvoice_cpu.checkpoint.stored_entries import DamagedZipError, Entry, stored_entries

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["OtherTensor", "TorchFileError", "read_torch_file"]

_DTYPES: Final = {  # name of the storage's class to torch's name of its numbers
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Double": "float64",
    "Char": "int8",
    "Byte": "uint8",
    "Short": "int16",
    "Int": "int32",
    "Long": "int64",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_LONGEST_AXIS = 1 << 40
# Tensors may share numbers (tied embeddings; a speaker's embedding stands there for LM and flow),
# but all of them together must not be a multiple of the file.
_MOST_SHARED = 4


class TorchFileError(Exception):
    """The file can't be read; the text completes "PATH ..."."""


def read_torch_file(path: Path) -> Any:
    """What the file holds: dicts, lists, tuples, text, numbers, torch tensors and `OtherTensor`.

    Raises: TorchFileError, ImportError without torch.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise TorchFileError("is not a file")
        with path.open("rb") as file:
            head = file.read(16)
            if not head.startswith(b"PK\x03\x04"):
                raise TorchFileError(_what_else(head))
            # Copy on write: torch wants memory that may be written.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except OSError as error:
        raise TorchFileError(f"can't be read: {error.strerror}") from None
    return _Reader(content).value()


def _what_else(head: bytes) -> str:
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        return "is a safetensors file under another name"
    if head.startswith(b"\x80"):
        return "is a bare pickle (PyTorch before 1.6), which can't be read safely"
    return "is not a PyTorch file"


class _Reader:
    """One mapped file, and the storages that were found in it so far."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        try:
            self._entries = stored_entries(content)
        except DamagedZipError as error:
            raise TorchFileError(f"is incomplete or damaged: {error}") from None
        self._folder = self._find_folder()
        self._storages: dict[tuple[str, str], Tensor] = {}
        self._total = 0  # bytes of all tensors

    def _find_folder(self) -> str:
        """The name before each entry's, with its slash."""
        programs = [name for name in self._entries if name.rpartition("/")[2] == "data.pkl"]
        if not programs:
            raise TorchFileError("is a zip file, but none of PyTorch")
        folder = programs[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in self._entries:
            raise TorchFileError("is a TorchScript program, not a state dict")
        if len(programs) > 1 or "/" in folder[:-1]:
            raise TorchFileError("is a zip file of several, none of PyTorch")
        return folder

    def value(self) -> Any:
        """Raises: TorchFileError."""
        order = self._entries.get(f"{self._folder}byteorder")
        if order and self._bytes(order, 16) != b"little":
            raise TorchFileError("was written on a machine of the other byte order")
        try:
            entry = self._entries[f"{self._folder}data.pkl"]
            program = self._bytes(entry, MAX_BYTES + 1)
            if len(program) > MAX_BYTES:
                raise TorchFileError(f"has a list of tensors of {entry.size} bytes")
            if zlib.crc32(program) != entry.crc32:
                raise TorchFileError("is damaged: its list of tensors was changed")
            return read_pickled_tensors(program, self._tensor)
        except PythonObjectsError:
            raise TorchFileError(
                "holds Python objects besides tensors; reading them could run a program"
            ) from None
        except MalformedPickleError as error:
            raise TorchFileError(f"is damaged: {error}") from None

    def _bytes(self, entry: Entry, most: int) -> bytes:
        return self._content[entry.start : entry.start + min(entry.size, most)]

    def _tensor(self, record: Strided | OtherTensor) -> Tensor | OtherTensor:
        if isinstance(record, OtherTensor):
            return record
        numbers = self._storage(record.storage)
        shape, stride = record.shape, record.stride
        count = math.prod(shape)
        if len(stride) != len(shape) or any(axis >= _LONGEST_AXIS for axis in shape):
            raise TorchFileError("is damaged: a tensor has an impossible shape")
        last = record.offset + sum(
            (axis - 1) * step for axis, step in zip(shape, stride, strict=True)
        )
        if count > numbers.numel() or (count and last >= numbers.numel()):
            raise TorchFileError(
                f"holds a tensor of {count} numbers on a storage of {numbers.numel()}: expanded "
                "tensors are not read"
            )
        self._total += count * numbers.element_size()
        if self._total > _MOST_SHARED * len(self._content):
            raise TorchFileError("holds tensors that are together a multiple of the file")
        return numbers.as_strided(shape, stride, record.offset)

    def _storage(self, storage: Storage) -> Tensor:
        """All numbers of a storage, [count]."""
        import torch

        known = self._storages.get((storage.key, storage.kind))
        if known is not None and known.numel() == storage.count:
            return known
        entry = self._entries.get(f"{self._folder}data/{storage.key}")
        if entry is None:
            raise TorchFileError(f"is incomplete: it lacks the numbers {storage.key:.80}")
        if storage.kind not in _DTYPES:
            raise TorchFileError(f"holds numbers of the unknown kind {storage.kind:.80}")
        dtype: torch.dtype = getattr(torch, _DTYPES[storage.kind])
        if storage.count * dtype.itemsize != entry.size:
            raise TorchFileError(
                f"is damaged: the numbers {storage.key:.80} take {entry.size} bytes, "
                f"not {storage.count * dtype.itemsize}"
            )
        numbers = torch.empty(0, dtype=dtype)
        if storage.count:
            numbers = torch.frombuffer(
                self._content, dtype=dtype, count=storage.count, offset=entry.start
            )
        self._storages[storage.key, storage.kind] = numbers
        return numbers
