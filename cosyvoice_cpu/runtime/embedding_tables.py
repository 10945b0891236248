"""Embedding tables read row by row from a memory-mapped safetensors file.

The text table of the speech LM has 152,000 rows (half a gigabyte), of which a sentence touches
thirty: mapped, only these pages are ever read.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.safetensors_header import Header, read_header
from cosyvoice_cpu.errors import BundleError

_DTYPES: dict[str, type[np.generic]] = {
    "F32": np.float32,
    "F16": np.float16,
    "I8": np.int8,
    "U8": np.uint8,  # two 4-bit integers to a byte, the first in the lower half, 8 is zero
}
_SCALE = ".scale"  # suffix of the scales: float32 per row of int8, float16 per block of 4-bit
_NIBBLE_ZERO = 8


class EmbeddingTable:
    """A matrix of a safetensors file, [rows, width]; `table(ids)` reads float32 rows."""

    def __init__(self, path: Path, name: str) -> None:
        """Map tensor `name`, and its scales if it is int8 or 4-bit.

        Raises: BundleError if it is not there or not such a matrix.
        """
        try:
            header = read_header(path)
            self._rows = _mapped(path, header, name)
            rows, width = self._rows.shape
            self._scale: NDArray[Any] | None = None  # [rows, scales of a row]
            if self._rows.dtype in (np.int8, np.uint8):
                width *= 2 if self._rows.dtype == np.uint8 else 1
                self._scale = _mapped(path, header, name + _SCALE).reshape(rows, -1)
                if width % self._scale.shape[1]:
                    raise ValueError(f"the scales of {name} do not fit its shape")
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise BundleError(
                f"{path} holds no usable table {name} ({error})", "export the checkpoint again"
            ) from error
        self.shape: tuple[int, int] = (rows, width)

    def __call__(self, ids: Sequence[int]) -> Floats:
        """Rows [len(ids), width]; the caller keeps ids within 0..rows - 1."""
        wanted = np.asarray(ids, np.int64)
        picked = self._rows[wanted]
        if picked.dtype == np.uint8:
            halves = np.stack([picked & 15, picked >> 4], axis=-1).astype(np.float32)
            picked = (halves - _NIBBLE_ZERO).reshape(len(wanted), self.shape[1])
        values = np.asarray(picked, np.float32)
        if self._scale is None:
            return values
        scale = np.asarray(self._scale[wanted], np.float32)
        return values * scale.repeat(self.shape[1] // scale.shape[1], axis=1)


def _mapped(path: Path, header: Header, name: str) -> NDArray[Any]:
    """Tensor `name` of the file with this header."""
    entry = header.tensors[name]
    shape = tuple(entry["shape"])
    low, high = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if high - low != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the size of {name} does not fit its shape")
    return np.memmap(path, dtype=dtype, mode="r", offset=header.start + low, shape=shape)
