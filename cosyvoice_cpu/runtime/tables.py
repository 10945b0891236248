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

from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.errors import BundleError

Floats = NDArray[np.float32]

_DTYPES: dict[str, type[np.generic]] = {"F32": np.float32, "F16": np.float16, "I8": np.int8}
_SCALE = ".scale"  # suffix of an int8 table's scales: one float32 per row


class EmbeddingTable:
    """A matrix of a safetensors file, [rows, width]; `table(ids)` reads float32 rows."""

    def __init__(self, path: Path, name: str) -> None:
        """Map tensor `name`, and its scales if it is int8.

        Raises: BundleError if it is not there or not such a matrix.
        """
        try:
            header, start = read_header(path)
            self._rows = _mapped(path, start, header, name)
            rows, width = self._rows.shape
            self._scale: NDArray[Any] | None = None
            if self._rows.dtype == np.int8:
                self._scale = _mapped(path, start, header, name + _SCALE)
                if self._scale.shape != (rows,) or self._scale.dtype != np.float32:
                    raise ValueError(f"the scales of {name} do not fit its shape")
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise BundleError(
                f"{path} holds no usable table {name} ({error})", "export the checkpoint again"
            ) from error
        self.shape: tuple[int, int] = (rows, width)

    def __call__(self, ids: Sequence[int]) -> Floats:
        """Rows [len(ids), width]; the caller keeps ids within 0..rows - 1."""
        wanted = np.asarray(ids, np.int64)
        picked = np.asarray(self._rows[wanted], np.float32)
        return picked if self._scale is None else picked * self._scale[wanted, None]


def _mapped(path: Path, start: int, header: dict[str, Any], name: str) -> NDArray[Any]:
    """Tensor `name` of a file whose tensors begin at byte `start`."""
    entry = header[name]
    shape = tuple(entry["shape"])
    low, high = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    if high - low != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"the size of {name} does not fit its shape")
    return np.memmap(path, dtype=dtype, mode="r", offset=start + low, shape=shape)
