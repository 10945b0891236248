"""The weights of a bundle's component, memory-mapped: nothing is read before it is used."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.export.weights import SAFETENSORS_DTYPES, Weight

_DTYPES = {code: np.dtype(name) for name, code in SAFETENSORS_DTYPES.items()}


def read_weights(path: Path) -> dict[str, Weight]:
    """Every tensor of a safetensors file that the exporter wrote, by name.

    Raises: BundleError if the file is not one.
    """
    try:
        header = read_header(path)
        return {name: _weight(path, header.start, entry) for name, entry in header.tensors.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path} is no usable weight file ({error})", "export the checkpoint again"
        ) from error


def _weight(path: Path, start: int, entry: dict[str, list[int]]) -> Weight:
    dtype, shape = _DTYPES[str(entry["dtype"])], tuple(entry["shape"])
    offset = start + entry["data_offsets"][0]
    load: Callable[[], NDArray[np.generic]] = partial(
        np.memmap, path, dtype=dtype, mode="r", offset=offset, shape=shape
    )
    return Weight(shape, dtype, load)
