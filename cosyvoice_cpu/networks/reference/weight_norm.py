"""Weight norm: official vocoder files hold g and v, our modules hold plain weights.

w = g v / ||v||, the norm taken over (in, kernel) for each output channel. The files use the
parametrization names `X.parametrizations.weight.original0` (g [out, 1, 1]) and `.original1`
(v [out, in, kernel]).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

_G = ".parametrizations.weight.original0"
_V = ".parametrizations.weight.original1"


def fold_weight_norm(
    tensors: Mapping[str, Tensor], dtype_of: Callable[[str], torch.dtype]
) -> dict[str, Tensor]:
    """Replace each pair `X...original0`, `X...original1` by `X.weight` of dtype_of("X.weight").

    The product is formed in that dtype: the f0 predictor runs in float64, and folding it in
    float32 moves f0 by 3e-7 and the waveform by 6e-4. A pair of which one half is missing is left
    as it is, for strict loading to name.
    """
    folded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_G) and name.removesuffix(_G) + _V in tensors:
            continue
        layer = name.removesuffix(_V)
        if layer == name or layer + _G not in tensors:
            folded[name] = tensor
            continue
        weight = f"{layer}.weight"
        dtype = dtype_of(weight)
        g, v = tensors[layer + _G].to(dtype), tensor.to(dtype)
        folded[weight] = v * (g / _channel_norm(v))
    return folded


def unfold_weight_norm(
    tensors: Mapping[str, Tensor], is_normed: Callable[[str], bool]
) -> dict[str, Tensor]:
    """The inverse: `X.weight` becomes g = ||w||, v = w in float32 where is_normed("X.weight")."""
    unfolded: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if is_normed(name):
            layer = name.removesuffix(".weight")
            unfolded[layer + _G] = _channel_norm(tensor).float()
            unfolded[layer + _V] = tensor.float()
        else:
            unfolded[name] = tensor.float()
    return unfolded


def _channel_norm(weight: Tensor) -> Tensor:
    return weight.square().sum(dim=(1, 2), keepdim=True).sqrt()  # [out, 1, 1]
