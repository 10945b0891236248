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
_HALF_EXPONENT = np.uint16(0x7C00)  # its bits, all set where a half is NaN or infinite
_PIECE = 1 << 20  # halves looked at together

SAFETENSORS_DTYPES = {
    "float32": "F32",
    "float16": "F16",
    "float64": "F64",
    "int64": "I64",
    "int8": "I8",
    "uint8": "U8",
}
_DTYPES = {code: np.dtype(name) for name, code in SAFETENSORS_DTYPES.items()}


class NotFiniteError(ValueError):
    """A weight holds NaN or infinity."""


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

            array = np.ascontiguousarray(source())
            if not is_finite(array):  # the conversion would make large numbers of infinite ones
                raise NotFiniteError
            half: NDArray[np.generic] = convert_np_to_float16(array)
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
    Raises: BundleError if a number is NaN or infinite.
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
            weight, offset = weights[name], file.tell()
            try:
                array = np.asarray(weight.load(), dtype=weight.dtype, order="C")
                if array.shape != weight.shape:
                    raise ValueError(f"{name}: shape {array.shape}, announced as {weight.shape}")
                # Not tofile: a Ctrl-C on its way becomes a TypeError about the kind of file.
                file.write(array.data)
                # Looked at when it is written: the system maps a file's pages for a copy in half
                # the time that it takes to map them for a program.
                if not is_finite(array):
                    raise NotFiniteError
            except NotFiniteError:
                raise BundleError(
                    f"{path.parent.name}: the weight {name} holds NaN or infinity",
                    "its training failed, or a number exceeds float32; take another checkpoint",
                ) from None
            stored[name] = StoredWeight(
                path.name, offset, weight.num_bytes, weight.shape, weight.dtype
            )
    assert not stored or start == min(slot.offset for slot in stored.values())
    return stored


def is_finite(array: NDArray[np.generic]) -> bool:
    """Whether no number is NaN or infinite."""
    if array.dtype.kind != "f" or not array.size:
        return True
    if array.dtype == np.float16:  # by the bits, as NumPy compares halves one by one
        bits = array.reshape(-1).view(np.uint16)
        pieces = (bits[start : start + _PIECE] for start in range(0, bits.size, _PIECE))
        return not any(np.any(piece & _HALF_EXPONENT == _HALF_EXPONENT) for piece in pieces)
    with np.errstate(invalid="ignore"):  # least and largest: no mask of the array's size is made
        return bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def not_finite(path: Path) -> list[str]:
    """The tensors of a weight file that hold NaN or infinity. Raises: BundleError."""
    return [name for name, weight in read_weights(path).items() if not is_finite(weight.load())]


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
