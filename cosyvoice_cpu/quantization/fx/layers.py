"""Linear layers and convolutions on a bundle's stored weights, float32 or int8.

Float32 layers are torch's own, so that FX finds them; their weights are views of the mapped file.
int8 layers have fixed activation ranges: linear ones run on FBGEMM's integer kernels, convolutions
compute the same integers in float32, since FBGEMM would quantize what they give as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor, nn

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.quantization.kernels.static import INPUT_SCALE, INPUT_ZERO_POINT, SCALE

_FBGEMM = "fbgemm"


@dataclass(frozen=True)
class ConvolutionSettings:
    """What the weight's shape does not say."""

    stride: int
    dilation: int
    groups: int


class GraphFacts:
    """What a network's graph says and its weights do not: heads, slopes, strides."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(str(path), load_external_data=False).graph
        self._nodes = list(graph.node)
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def attribute(self, op: str, name: str) -> Any:
        """Attribute `name` of the first node of type `op`."""
        return _attributes(next(node for node in self._nodes if node.op_type == op))[name]

    def constant(self, op: str, place: int) -> float:
        """The scalar that the first node of type `op` has as input number `place`."""
        node = next(node for node in self._nodes if node.op_type == op)
        return float(onnx.numpy_helper.to_array(self._constants[node.input[place]]))

    def inputs(self, op: str) -> int:
        """How many inputs the first node of type `op` has."""
        return len(next(node for node in self._nodes if node.op_type == op).input)

    def convolution(self, weight: str) -> ConvolutionSettings:
        """Those of the convolution that reads `weight`."""
        reads = (node for node in self._nodes if len(node.input) > 1 and node.input[1] == weight)
        found = _attributes(next(reads))
        return ConvolutionSettings(
            stride=found.get("strides", [1])[0],
            dilation=found.get("dilations", [1])[0],
            groups=found.get("group", 1),
        )


class StoredLayers:
    """Makes layers of a component's stored weights; names are those of the weight file."""

    def __init__(self, weights: Mapping[str, Weight]) -> None:
        self.weights = weights

    def tensor(self, name: str) -> Tensor:
        """A stored tensor, mapped; not to be written to."""
        array = np.asarray(self.weights[name].load())
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(array)

    def count(self, pattern: str) -> int:
        """How many weights `pattern` names, counted from 0: `layers.{}.qkv.weight`."""
        number = 0
        while pattern.format(number) in self.weights:
            number += 1
        return number

    def linear(self, name: str) -> nn.Module:
        """x @ weight + bias, weight stored [in, out]. Raises: UsageError for another kernel's."""
        weight, bias = self.tensor(f"{name}.weight"), self._bias(name)
        if weight.dtype == torch.int8:
            return Int8Linear(weight, bias, *self._ranges(name))
        _require_float(name, weight)
        inner, out = weight.shape
        layer = nn.Linear(inner, out, bias=bias is not None, device="meta")
        _give(layer, weight.T, bias)
        return layer

    def convolution(self, name: str, facts: GraphFacts) -> nn.Module:
        """A convolution [out, in / groups, kernel] without padding."""
        weight, bias = self.tensor(f"{name}.weight"), self._bias(name)
        settings = facts.convolution(f"{name}.weight")
        if weight.dtype == torch.int8:
            return Int8Convolution(weight, bias, *self._ranges(name), settings)
        _require_float(name, weight)
        out, inner, kernel = weight.shape
        layer = nn.Conv1d(
            inner * settings.groups,
            out,
            kernel,
            settings.stride,
            dilation=settings.dilation,
            groups=settings.groups,
            bias=bias is not None,
            device="meta",
        )
        _give(layer, weight, bias)
        return layer

    def _bias(self, name: str) -> Tensor | None:
        return self.tensor(f"{name}.bias") if f"{name}.bias" in self.weights else None

    def _ranges(self, name: str) -> tuple[Tensor, float, int]:
        weight = f"{name}.weight"
        if weight + INPUT_SCALE not in self.weights:
            raise UsageError(
                f"{name} has no fixed activation range, so the torch engine can't run it",
                "it runs float32 and what the kernel static-int8 made",
            )
        scale, zero = self.tensor(weight + INPUT_SCALE), self.tensor(weight + INPUT_ZERO_POINT)
        return self.tensor(weight + SCALE), float(scale), int(zero)


class Int8Linear(nn.Module):
    """uint8 activations of a fixed range times int8 weights [in, out], sums scaled to float32.

    Raises: UsageError where torch has no FBGEMM, which needs an x86 processor.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_scale: Tensor,
        scale: float,
        zero_point: int,
    ) -> None:
        super().__init__()
        if _FBGEMM not in torch.backends.quantized.supported_engines:
            raise UsageError(
                "this torch has no integer kernels for x86 (FBGEMM)",
                "run the bundle with ONNX Runtime: load_bundle instead of the torch engine",
            )
        self.scale, self.zero_point = scale, zero_point
        self._weight, self._bias = weight, bias
        self._channels = weight_scale * scale  # [out]
        self._packed = None if _sums_overflow() else _packed(weight, weight_scale, bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out], float32."""
        if self._packed is not None:
            return _product(x, self.scale, self.zero_point, self._packed)
        sums = _integers(x, self.scale, self.zero_point) @ self._weight.float()
        out = sums * self._channels
        return out if self._bias is None else out + self._bias


def _packed(weight: Tensor, scale: Tensor, bias: Tensor | None) -> Any:
    """The weight [in, out], int8, as FBGEMM wants it."""
    torch.backends.quantized.engine = _FBGEMM
    zeros = torch.zeros(len(scale), dtype=torch.int64)
    with warnings.catch_warnings():
        # FBGEMM's packing still takes the tensor type that torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
        integers = torch._make_per_channel_quantized_tensor(
            weight.T.contiguous(), scale.double(), zeros, 0
        )
    return torch.ops.quantized.linear_prepack(integers, bias)


def _product(x: Tensor, scale: float, zero_point: int, packed: Any) -> Tensor:
    out: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        x.contiguous(), scale, zero_point, packed
    )
    return out


@cache
def _sums_overflow() -> bool:
    """Whether FBGEMM adds pairs of products in 16 bits here, as on x86 without AVX-512 VNNI.

    Then layers compute with the same integers in float32, as convolutions do.
    """
    largest = torch.full((64, 16), 127, dtype=torch.int8)
    got = _product(torch.full((4, 64), 255.0), 1.0, 0, _packed(largest, torch.ones(16), None))
    return not bool((got == 64 * 127 * 255).all())


def _integers(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """uint8 less its zero point, as float32."""
    return (x / scale).round().add(zero_point).clamp(0, 255) - zero_point


class Int8Convolution(nn.Module):
    """The same for a convolution; its sums are integers below 2^24, so float32 computes them."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_scale: Tensor,
        scale: float,
        zero_point: int,
        settings: ConvolutionSettings,
    ) -> None:
        super().__init__()
        self.scale, self.zero_point = scale, zero_point
        # Named as in nn.Conv1d, which `look_back` reads.
        self.kernel_size, self.stride = (weight.shape[2],), (settings.stride,)
        self.dilation, self.groups = (settings.dilation,), settings.groups
        self._weight, self._bias = weight.float(), bias
        self._channels = (weight_scale * scale)[:, None]  # [out, 1]

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, T] to [B, out, T'], float32."""
        sums = F.conv1d(
            _integers(x, self.scale, self.zero_point),
            self._weight,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        out = sums * self._channels
        return out if self._bias is None else out + self._bias[:, None]


def look_back(conv: nn.Module, x: Tensor) -> Tensor:
    """A convolution over the past, zeros before the start; x [B, C, T]."""
    (kernel,), (stride,), (dilation,) = (
        cast("tuple[int]", part) for part in (conv.kernel_size, conv.stride, conv.dilation)
    )
    before = stride - 1 if stride > 1 else (kernel - 1) * dilation
    out: Tensor = conv(F.pad(x, (before, 0)))
    return out


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _give(layer: nn.Module, weight: Tensor, bias: Tensor | None) -> None:
    """The mapped tensors as the layer's, not copied."""
    layer.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        layer.bias = nn.Parameter(bias, requires_grad=False)


def _require_float(name: str, weight: Tensor) -> None:
    if weight.dtype != torch.float32:
        raise UsageError(
            f"{name} is stored as {str(weight.dtype).removeprefix('torch.')}, which the torch "
            "engine can't run",
            "it runs float32 and what the kernel static-int8 made",
        )
