"""Weights of the reference networks: from an official folder, and under the official names.

A network's attribute names are the official tensor names, so names and shapes of a file follow from
the networks that it holds, built on the meta device. `Checkpoint.tensors` checks the file against
them, in both directions: a silently skipped weight is heard and not seen. Buffers follow from the
configuration; they are written, and not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.checkpoint.folder import Checkpoint
from cosyvoice_cpu.generations import Generation


def empty_networks(
    config: CheckpointConfig, generation: Generation, part: str
) -> dict[str, nn.Module]:
    """Prefix of the official names to network, of each component whose tensors are in `part`.

    Without weights: parameters are on the meta device.
    """
    with torch.device("meta"):
        return {
            spec.key_prefix: spec.reference_class()(spec.config_of(config))
            for spec in generation.components.values()
            if spec.checkpoint_part == part
        }


def expected_tensors(networks: Mapping[str, nn.Module]) -> dict[str, tuple[int, ...]]:
    """Official name to shape of every tensor that is read from the file of `networks`."""
    return {
        prefix + name: tuple(parameter.shape)
        for prefix, network in networks.items()
        for name, parameter in network.named_parameters()
    }


def fill(networks: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Give `networks` the `tensors` that `expected_tensors` lists, and make them ready to run.

    Tensors are held, not copied, but for those that change their type.
    """
    for prefix, network in networks.items():
        read = {
            name: tensors[prefix + name].to(parameter.dtype).contiguous()
            for name, parameter in network.named_parameters()
        }
        network.load_state_dict(network.state_dict() | read, assign=True)
        network.eval()


def official_tensors(
    networks: Mapping[str, nn.Module], generation: Generation
) -> dict[str, Tensor]:
    """The tensors of a file's `networks` (by prefix) under the official names, detached, float32.

    Tied tensors are one tensor under two names; float32 ones are not copied.
    """
    tensors = {
        prefix + name: tensor.float()
        for prefix, network in networks.items()
        for name, tensor in network.state_dict().items()
    }
    tied = generation.tied_keys.items()
    return tensors | {name: tensors[to] for name, to in tied if to in tensors}


def load_networks(checkpoint: Checkpoint, part: str) -> dict[str, Any]:
    """Component to network of `part`, on the weights of its file, ready for inference.

    Raises: CheckpointError naming the file and the tensors that are missing, left over or of
    another shape.
    """
    generation = checkpoint.generation
    networks = empty_networks(checkpoint.config, generation, part)
    fill(networks, checkpoint.tensors(part, expected_tensors(networks)))
    return {
        name: networks[spec.key_prefix]
        for name, spec in generation.components.items()
        if spec.checkpoint_part == part
    }
