"""Linear layers and convolutions in INT8 with fixed activation ranges, in torch.

    activations   uint8 of a fixed scale and zero point: what the observers found
    weights       int8 with a scale for each output channel
    result        float32, not rounded

Linear layers run on FBGEMM's integer kernels, where these are exact: without VNNI they add pairs of
products in 16 bits, which overflow. Elsewhere, and for convolutions (FBGEMM would quantize what
these give as well), float32 computes with the same integers.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.bundle.integer_weights import INPUT_SCALE, INPUT_ZERO_POINT, SCALE
from cosyvoice_cpu.errors import UsageError

_FBGEMM = "fbgemm"


class Int8Linear(nn.Module):
    """Products of uint8 and int8, sums scaled to float32; [..., in] to [..., out]."""

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_scale: Tensor,
        scale: float,
        zero_point: int,
    ) -> None:
        """`weight` int8 [out, in]."""
        super().__init__()
        self.scale, self.zero_point = scale, zero_point
        self._weight, self._bias = weight, bias
        self._channels = weight_scale * scale  # [out]
        self._packed = _packed(weight, bias, weight_scale) if _fbgemm_is_exact() else None

    def forward(self, x: Tensor) -> Tensor:
        if self._packed is not None:
            return _fbgemm_product(x, self.scale, self.zero_point, self._packed)
        integers = _rounded(x, self.scale, self.zero_point)
        out = F.linear(integers, self._weight.float()) * self._channels
        return out if self._bias is None else out + self._bias


def _rounded(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """The uint8 integers of `x` less the zero point, as floats."""
    return (x / scale).round().add(zero_point).clamp(0, 255) - zero_point


def _packed(weight: Tensor, bias: Tensor | None, weight_scale: Tensor) -> Any:
    """FBGEMM's own layout of int8 [out, in]."""
    zeros = torch.zeros(len(weight_scale), dtype=torch.int64)
    with warnings.catch_warnings():
        # FBGEMM's packing still takes the tensor type that torch 2.13 calls deprecated.
        warnings.filterwarnings("ignore", message=".*quantized tensor creation functions")
        integers = torch._make_per_channel_quantized_tensor(
            weight.contiguous(), weight_scale.double(), zeros, 0
        )
    torch.backends.quantized.engine = _FBGEMM
    return torch.ops.quantized.linear_prepack(integers, bias)


def _fbgemm_product(x: Tensor, scale: float, zero_point: int, packed: Any) -> Tensor:
    out: Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
        x.contiguous(), scale, zero_point, packed
    )
    return out


@cache
def _fbgemm_is_exact() -> bool:
    """False without FBGEMM, and where the largest products overflow in it."""
    if _FBGEMM not in torch.backends.quantized.supported_engines:
        return False
    width = 64
    packed = _packed(torch.full((1, width), 127, dtype=torch.int8), None, torch.ones(1))
    product = _fbgemm_product(torch.full((1, width), 255.0), 1.0, 0, packed)
    return product.item() == width * 127 * 255


class Int8Convolution(nn.Module):
    """The same for a convolution [B, in, T] to [B, out, T'].

    Its sums are integers below 2^24, which float32 holds exactly.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        weight_scale: Tensor,
        scale: float,
        zero_point: int,
        like: nn.Conv1d,
    ) -> None:
        """`weight` int8 [out, in / groups, kernel]; stride, dilation and groups are those of
        `like`.
        """
        super().__init__()
        self.scale, self.zero_point = scale, zero_point
        self.stride, self.dilation, self.groups = like.stride, like.dilation, like.groups
        self._weight, self._bias = weight.float(), bias
        self._channels = (weight_scale * scale)[:, None]  # [out, 1]

    def forward(self, x: Tensor) -> Tensor:
        sums = F.conv1d(
            _rounded(x, self.scale, self.zero_point),
            self._weight,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
        )
        out = sums * self._channels
        return out if self._bias is None else out + self._bias[:, None]


def take_int8_layers(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put INT8 layers in the place of those whose stored weights are int8; the other tensors.

    `tensors` are laid out as a bundle stores them. Raises: UsageError for a layer of another
    kernel than these.
    """
    left = dict(tensors)
    for name, layer in list(network.named_modules()):
        key = f"{name}.weight"
        if not isinstance(layer, nn.Linear | nn.Conv1d) or tensors[key].dtype == layer.weight.dtype:
            continue
        _require_static(name, key, tensors)
        weight, bias = left.pop(key), left.pop(f"{name}.bias", None)
        scale = left.pop(key + SCALE)
        ranges = (float(left.pop(key + INPUT_SCALE)), int(left.pop(key + INPUT_ZERO_POINT)))
        replacement = (
            Int8Convolution(weight, bias, scale, *ranges, layer)
            if isinstance(layer, nn.Conv1d)
            else Int8Linear(weight.T, bias, scale, *ranges)
        )
        network.set_submodule(name, replacement)
    return left


def _require_static(name: str, key: str, tensors: Mapping[str, Tensor]) -> None:
    hint = "it runs float32 and what the kernel static-int8 made"
    if (dtype := tensors[key].dtype) != torch.int8:
        stored = str(dtype).removeprefix("torch.")
        raise UsageError(f"{name} is stored as {stored}, which the torch engine can't run", hint)
    if key + INPUT_SCALE not in tensors:
        raise UsageError(
            f"{name} has no fixed activation range, so the torch engine can't run it", hint
        )
