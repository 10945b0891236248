"""Whether ONNX Runtime's fast integer kernels are exact on this processor.

Without VNNI, x86 adds pairs of uint8 x int8 products in 16 bits, which overflow. ONNX Runtime can
be asked for uint8 x uint8 kernels instead (`session.x64quantprecision`), which are right and take
1.7 times as long. Asked for, it takes them wherever the two kernels differ: on processors with
AVX512_VNNI and without AVX_VNNI (Cascade Lake to Ice Lake) as well, where nothing overflows.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnxruntime as ort

_ROWS, _COLUMNS = 64, 16
# y = MatMulInteger(a, b) of uint8 [1, 64] and int8 [64, 16]: opset 13, IR version 8.
_PRODUCT = (
    b'\x08\x08:\\\n\x18\n\x01a\n\x01b\x12\x01y"\rMatMulInteger\x12\x01gZ\x13\n\x01a\x12\x0e\n\x0c'
    b"\x08\x02\x12\x08\n\x02\x08\x01\n\x02\x08@Z\x13\n\x01b\x12\x0e\n\x0c\x08\x03\x12\x08\n\x02"
    b"\x08@\n\x02\x08\x10b\x13\n\x01y\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x01\n\x02\x08\x10B"
    b"\x04\n\x00\x10\r"
)


@cache
def fast_products_are_exact() -> bool:
    """The sum of the largest products, computed once per process; takes a few milliseconds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(_PRODUCT, options, providers=["CPUExecutionProvider"])
    most, weight = np.full((1, _ROWS), 255, np.uint8), np.full((_ROWS, _COLUMNS), 127, np.int8)
    (sums,) = session.run(["y"], {"a": most, "b": weight})
    return bool(np.all(sums == _ROWS * 255 * 127))
