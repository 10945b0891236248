"""Between the tensors of deployed networks and those of a bundle's weight files.

Names are the same. One rule: a linear layer's weight is stored [in, out], as ONNX Runtime's kernels
read it, and torch's own `nn.Linear` has it [out, in], as a view. What the tensors do not say of a
network (heads, strides, slopes) is its configuration, which the file's metadata hold as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import msgspec
import torch
from torch import Tensor, nn

from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.errors import BundleError

_CONFIG = "config"
C = TypeVar("C")


def config_metadata(config: object) -> dict[str, str]:
    """The metadata of the weight file of a network of this configuration."""
    return {_CONFIG: msgspec.json.encode(config).decode()}


def stored_config(path: Path, kind: type[C]) -> C:
    """The configuration in the metadata of a weight file, of the network's `config_type`.

    Raises: BundleError if the file does not state one.
    """
    try:
        return msgspec.json.decode(read_header(path).metadata[_CONFIG], type=kind)
    except (OSError, ValueError, KeyError) as error:
        raise BundleError(
            f"{path} does not say how its network is built ({error})", "export the checkpoint again"
        ) from error


def stored_tensors(network: nn.Module) -> dict[str, Tensor]:
    """The network's tensors by name, laid out as they are stored: views, nothing is copied."""
    return _turned(network, network.state_dict())


def load_stored(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give `network` stored tensors, which are held, not copied; it may live on the meta device.

    Raises: RuntimeError, by torch, if names or shapes differ.
    """
    network.load_state_dict(_turned(network, tensors), assign=True)


def linear_weights(network: nn.Module) -> set[str]:
    """The names of the weights that are stored [in, out]."""
    modules = network.named_modules()
    return {f"{name}.weight".removeprefix(".") for name, m in modules if isinstance(m, nn.Linear)}


def _turned(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    linear = linear_weights(network)
    return {name: tensor.T if name in linear else tensor for name, tensor in tensors.items()}


def layer_tensors(name: str, *layers: nn.Module) -> dict[str, Tensor]:
    """Weight and, if there is one, bias of a linear layer or a convolution, or of several joined
    by their outputs. Weight norm is folded.
    """
    tensors = {f"{name}.weight": _joined([cast("Tensor", layer.weight) for layer in layers])}
    biases = [layer.bias for layer in layers if isinstance(layer.bias, Tensor)]
    return tensors | ({f"{name}.bias": _joined(biases)} if biases else {})


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0].detach() if len(parts) == 1 else torch.cat([part.detach() for part in parts])
