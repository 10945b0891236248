"""PNG files of RGB pixels; two dozen lines instead of an imaging library.

Source: W3C, Portable Network Graphics specification, second edition.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BITS, _RGB = 8, 2


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """The content of a PNG file of `pixels` [height, width, 3].

    Raises: ValueError for another shape or type, or an image without a pixel.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise ValueError(f"{pixels.dtype} {pixels.shape} is no image [height, width, 3] of uint8")
    height, width, _ = pixels.shape
    no_filter = np.zeros((height, 1), np.uint8)  # each line begins with the kind of its filter
    lines = np.concatenate([no_filter, pixels.reshape(height, width * 3)], axis=1)
    header = struct.pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0)
    return (
        _SIGNATURE
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(lines.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
