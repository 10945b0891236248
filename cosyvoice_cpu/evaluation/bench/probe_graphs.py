"""Two tiny ONNX models, a float32 and an INT8 matrix product, written without the onnx package.

`doctor` measures what ONNX Runtime reaches on this machine in an installation without extras.
Source: onnx/onnx.proto (field numbers), protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import numpy as np

_IR_VERSION = 8
_OPSET = 17
_FLOAT, _INT8 = 1, 3  # TensorProto.DataType


def matmul_model(rows: int, inner: int, columns: int) -> bytes:
    """`y = x w` with x [rows, inner], w [inner, columns] constant, float32."""
    weight = np.random.default_rng(0).normal(0, 1, (inner, columns)).astype(np.float32)
    node = _node("MatMul", ["x", "w"], ["y"], domain="")
    return _model(node, [_tensor("w", _FLOAT, weight)], (rows, inner), (rows, columns))


def int8_matmul_model(rows: int, inner: int, columns: int) -> bytes:
    """The same with INT8 weights per column and activations quantized as they come."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (inner, columns)).astype(np.int8)
    scale = np.full(columns, 1 / 127, np.float32)
    node = _node("DynamicQuantizeMatMul", ["x", "w", "s"], ["y"], domain="com.microsoft")
    tensors = [_tensor("w", _INT8, weight), _tensor("s", _FLOAT, scale)]
    return _model(node, tensors, (rows, inner), (rows, columns))


def _model(
    node: bytes, tensors: list[bytes], inputs: tuple[int, int], outputs: tuple[int, int]
) -> bytes:
    graph = _bytes(1, node) + _bytes(2, b"probe")
    graph += b"".join(_bytes(5, tensor) for tensor in tensors)
    graph += _bytes(11, _value("x", inputs)) + _bytes(12, _value("y", outputs))
    opsets = [_bytes(1, b"") + _number(2, _OPSET), _bytes(1, b"com.microsoft") + _number(2, 1)]
    return _number(1, _IR_VERSION) + _bytes(7, graph) + b"".join(_bytes(8, o) for o in opsets)


def _node(operator: str, inputs: list[str], outputs: list[str], domain: str) -> bytes:
    content = b"".join(_bytes(1, name.encode()) for name in inputs)
    content += b"".join(_bytes(2, name.encode()) for name in outputs)
    return content + _bytes(4, operator.encode()) + _bytes(7, domain.encode())


def _tensor(name: str, data_type: int, array: np.ndarray) -> bytes:
    content = b"".join(_number(1, size) for size in array.shape)
    return content + _number(2, data_type) + _bytes(8, name.encode()) + _bytes(9, array.tobytes())


def _value(name: str, shape: tuple[int, int]) -> bytes:
    sizes = b"".join(_bytes(1, _number(1, size)) for size in shape)
    tensor_type = _number(1, _FLOAT) + _bytes(2, sizes)
    return _bytes(1, name.encode()) + _bytes(2, _bytes(1, tensor_type))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
