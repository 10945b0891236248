"""Embedding tables read row by row from a memory-mapped safetensors file.

The text table of the speech LM has 152,000 rows (half a gigabyte), of which a sentence touches
thirty: mapped, only these pages are ever read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.errors import BundleError

Floats = NDArray[np.float32]

_DTYPES: dict[str, type[np.floating]] = {"F32": np.float32, "F16": np.float16}
_MAX_HEADER_BYTES = 100_000_000  # the safetensors format's own limit


class EmbeddingTable:
    """A matrix of a safetensors file, [rows, width]; `table(ids)` reads float32 rows."""

    def __init__(self, path: Path, name: str) -> None:
        """Map tensor `name`. Raises: BundleError if it is not there or not a matrix of floats."""
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                if length > _MAX_HEADER_BYTES:
                    raise ValueError("its header is too long")
                entry = json.loads(file.read(length))[name]
            rows, width = entry["shape"]
            start, end = entry["data_offsets"]
            dtype = np.dtype(_DTYPES[entry["dtype"]])
            if end - start != rows * width * dtype.itemsize:
                raise ValueError(f"the size of {name} does not fit its shape")
            self._rows: NDArray[np.floating] = np.memmap(
                path, dtype=dtype, mode="r", offset=8 + length + start, shape=(rows, width)
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BundleError(
                f"{path} holds no usable table {name} ({error})", "export the checkpoint again"
            ) from error

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and width."""
        rows, width = self._rows.shape
        return rows, width

    def __call__(self, ids: Sequence[int]) -> Floats:
        """Rows [len(ids), width]; the caller keeps ids within 0..rows - 1."""
        picked = self._rows[np.asarray(ids, np.int64)]
        return np.asarray(picked, np.float32)
