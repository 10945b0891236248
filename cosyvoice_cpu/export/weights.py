"""One safetensors file per component: each weight once on disk, shared by the graphs of all sizes.

ONNX external data may point into any file at any offset, so the open safetensors format serves
ONNX Runtime, torch and any inspector alike. Tensors are written one after the other while they are
read from the (memory-mapped) checkpoint, so that an export never holds a component twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.safetensors_header import METADATA, read_header
from cosyvoice_cpu.errors import BundleError

# Kernels without prepacked weights read the file's own pages; alignment to a cache line is free.
ALIGNMENT = 64  # bytes
# Below this a tensor stays float32 under float16 storage: norms, biases and tables cost nothing.
MIN_HALF_ELEMENTS = 16_384

SAFETENSORS_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "float64": "F64",
    "int64": "I64",
    "int8": "I8",
    "uint8": "U8",
}
_DTYPES = {code: np.dtype(name) for name, code in SAFETENSORS_DTYPES.items()}


@dataclass(frozen=True)
class Weight:
    """A tensor that is computed only when it is written."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    load: Callable[[], NDArray[np.generic]]

    @classmethod
    def of(cls, array: NDArray[np.generic]) -> Weight:
        """A weight that is there already, or a view: a transpose costs nothing until then."""
        return cls(tuple(array.shape), array.dtype, lambda: array)

    @property
    def num_bytes(self) -> int:
        """Size in the file."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def as_half(self) -> Weight:
        """The same weight stored as float16; values outside its range are clamped to it."""
        if self.dtype != np.float32 or np.prod(self.shape) < MIN_HALF_ELEMENTS:
            return self
        source = self.load

        def load() -> NDArray[np.generic]:
            from onnxconverter_common.float16 import convert_np_to_float16

            half: NDArray[np.generic] = convert_np_to_float16(np.ascontiguousarray(source()))
            return half

        return Weight(self.shape, np.dtype(np.float16), load)


@dataclass(frozen=True)
class StoredWeight:
    """Where one weight lies in its file."""

    file: str
    offset: int  # bytes from the start of the file
    num_bytes: int
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


def write_weights(
    path: Path,
    weights: Mapping[str, Weight],
    *,
    metadata: Mapping[str, str] | None = None,
    half: bool = False,
) -> dict[str, StoredWeight]:
    """Write `weights` as one safetensors file and say where each lies.

    `metadata` stand in the file's header: the network's configuration. `half` stores the large
    float32 matrices as float16. Tensors whose size is a multiple of 64 bytes come first, so that
    all of these are aligned.
    """
    if half:
        weights = {name: weight.as_half() for name, weight in weights.items()}
    order = sorted(weights, key=lambda name: (weights[name].num_bytes % ALIGNMENT != 0, name))
    header: dict[str, object] = {METADATA: dict(metadata or {})}
    position = 0
    for name in order:
        weight = weights[name]
        end = position + weight.num_bytes
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[weight.dtype.name],
            "shape": list(weight.shape),
            "data_offsets": [position, end],
        }
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNMENT)
    start = 8 + len(text)
    stored: dict[str, StoredWeight] = {}
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in order:
            weight = weights[name]
            array = np.asarray(weight.load(), dtype=weight.dtype, order="C")
            if array.shape != weight.shape:
                raise ValueError(f"{name}: shape {array.shape}, announced as {weight.shape}")
            stored[name] = StoredWeight(
                path.name, file.tell(), weight.num_bytes, weight.shape, weight.dtype
            )
            array.tofile(file)
    assert not stored or start == min(slot.offset for slot in stored.values())
    return stored


def read_weights(path: Path) -> dict[str, Weight]:
    """Every tensor of a file that `write_weights` made, memory-mapped: read when it is used.

    Raises: BundleError if the file is not one.
    """
    try:
        header = read_header(path)
        return {name: _mapped(path, header.start, entry) for name, entry in header.tensors.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"{path} is no usable weight file ({error})", "export the checkpoint again"
        ) from error


def _mapped(path: Path, start: int, entry: dict[str, list[int]]) -> Weight:
    dtype, shape = _DTYPES[str(entry["dtype"])], tuple(entry["shape"])
    offset = start + entry["data_offsets"][0]
    load: Callable[[], NDArray[np.generic]] = partial(
        np.memmap, path, dtype=dtype, mode="r", offset=offset, shape=shape
    )
    return Weight(shape, dtype, load)
