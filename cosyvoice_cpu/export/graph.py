"""ONNX graphs whose weights lie in a safetensors file beside them, and a small builder for them.

Networks are traced from torch (`export.trace`); the builder is for the one that no trace gives the
form that runs, the speech LM: its key-value cache is one buffer, past and present.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.export.weights import StoredWeight

OPSET = 20  # understood by every ONNX Runtime from 1.17
IR_VERSION = 9
MICROSOFT = "com.microsoft"  # ONNX Runtime's fused kernels

Dim = int | str


def _tensor_type(dtype: np.dtype[np.generic] | type) -> int:
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def opset_imports() -> list[onnx.OperatorSetIdProto]:
    """Both domains for every graph: one without fused operators gets them when it is quantized."""
    return [helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)]


def external_tensor(name: str, stored: StoredWeight) -> onnx.TensorProto:
    """An initializer whose values are read from the component's weight file."""
    tensor = TensorProto()
    tensor.name = name
    tensor.data_type = _tensor_type(stored.dtype)
    tensor.dims.extend(stored.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", stored.file),
        ("offset", str(stored.offset)),
        ("length", str(stored.num_bytes)),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return tensor


def half_cast(name: str) -> onnx.NodeProto:
    """The node that makes `NAME.float32` of the weight `name`, which is stored as float16."""
    return helper.make_node(
        "Cast", [name], [f"{name}.float32"], name=f"{name}/Cast", to=TensorProto.FLOAT
    )


class GraphBuilder:
    """Collects nodes, inputs, outputs and initializers; names are made unique and readable."""

    def __init__(self, name: str, weights: Mapping[str, StoredWeight]) -> None:
        self.name = name
        self._weights = weights
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._scope: list[str] = []
        self._counter = 0

    def scope(self, name: str) -> _Scope:
        """Prefix for the names of nodes made inside a `with` block."""
        return _Scope(self._scope, name)

    def input(self, name: str, dtype: type, shape: Sequence[Dim]) -> str:
        """Declare a graph input; a string dimension is free."""
        self._inputs.append(helper.make_tensor_value_info(name, _tensor_type(dtype), shape))
        return name

    def output(self, value: str, name: str, dtype: type, shape: Sequence[Dim]) -> None:
        """Make `value` the graph output `name`."""
        self._nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        self._outputs.append(helper.make_tensor_value_info(name, _tensor_type(dtype), shape))

    def direct_output(self, name: str, dtype: type, shape: Sequence[Dim]) -> None:
        """Declare the existing value `name` an output: no copy, so buffers can be bound."""
        self._outputs.append(helper.make_tensor_value_info(name, _tensor_type(dtype), shape))

    def constant(self, array: NDArray[np.generic] | np.generic, name: str | None = None) -> str:
        """A small initializer inside the graph file."""
        self._counter += 1
        label = name or f"constant_{self._counter}"
        self._initializers[label] = numpy_helper.from_array(np.asarray(array), label)
        return label

    def integers(self, *values: int) -> str:
        """An int64 vector."""
        return self.constant(np.array(values, dtype=np.int64))

    def weight(self, name: str) -> str:
        """The stored weight `name` as float32: external data, with a cast if it is stored half."""
        stored = self._weights[name]
        if name not in self._initializers:
            self._initializers[name] = external_tensor(name, stored)
            if stored.dtype == np.float16:
                self._nodes.append(half_cast(name))
        return f"{name}.float32" if stored.dtype == np.float16 else name

    def node(self, op: str, inputs: Sequence[str], *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output; returns the output's name."""
        return self.nodes(op, inputs, 1, domain=domain, **attributes)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: int | Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs, counted or named; returns their names."""
        self._counter += 1
        label = "/".join([*self._scope, f"{op}_{self._counter}"])
        if isinstance(outputs, int):
            names = [label] if outputs == 1 else [f"{label}:{i}" for i in range(outputs)]
        else:
            names = list(outputs)
        self._nodes.append(
            helper.make_node(op, list(inputs), names, name=label, domain=domain, **attributes)
        )
        return names

    def linear(self, x: str, weight: str, bias: str | None = None) -> str:
        """x @ weight + bias with the weight stored [in, out], as the kernel reads it."""
        y = self.node("MatMul", [x, self.weight(weight)])
        return self.node("Add", [y, self.weight(bias)]) if bias else y

    def add(self, a: str, b: str) -> str:
        """a + b."""
        return self.node("Add", [a, b])

    def mul(self, a: str, b: str) -> str:
        """a * b."""
        return self.node("Mul", [a, b])

    def reshape(self, x: str, *shape: int) -> str:
        """Reshape to constants (0 copies a dimension, -1 infers one)."""
        return self.node("Reshape", [x, self.integers(*shape)])

    def save(self, path: Path) -> None:
        """Check the graph's form and write it. Raises: onnx.checker.ValidationError on our bug."""
        graph = helper.make_graph(
            self._nodes,
            self.name,
            self._inputs,
            self._outputs,
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            opset_imports=opset_imports(),
            ir_version=IR_VERSION,
            producer_name="cosyvoice-cpu",
            producer_version=__version__,
        )
        path.write_bytes(model.SerializeToString())
        onnx.checker.check_model(str(path))


class _Scope:
    def __init__(self, stack: list[str], name: str) -> None:
        self._stack, self._name = stack, name

    def __enter__(self) -> None:
        self._stack.append(self._name)

    def __exit__(self, *_: object) -> None:
        self._stack.pop()
