"""Between our module names and the tensor names of the official checkpoint files.

Each network states its naming once, as a table of prefixes (`#` stands for a number, at most one in
a prefix). Loading is strict in both directions: a tensor that is missing, left over or of another
shape is an error that names it, because a silently skipped weight is heard and not seen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from cosyvoice_cpu.errors import CheckpointError

_HINT = "is this the file of another model, or of another size than the YAML states?"


@dataclass(frozen=True)
class KeyTable:
    """Prefix pairs (ours, official) of one network; the first that fits a name is taken."""

    network: str  # the component's name, for messages
    prefixes: tuple[tuple[str, str], ...]

    def official(self, ours: str) -> str:
        """The official name of our tensor `ours`. Raises KeyError if no prefix fits."""
        for our_prefix, official_prefix in self.prefixes:
            pattern = re.escape(our_prefix).replace(r"\#", r"(\d+)")
            if match := re.match(pattern, ours):
                return match.expand(official_prefix.replace("#", r"\1")) + ours[match.end() :]
        raise KeyError(ours)


def load_official(module: nn.Module, table: KeyTable, tensors: Mapping[str, Tensor]) -> None:
    """Give `module` the tensors of the official names, in the dtype of the module's own.

    `module` may live on the meta device (weights of gigabytes are then never made twice): tensors
    of the right dtype are held, not copied.
    Raises: CheckpointError naming the missing, left-over or misshapen tensors.
    """
    own = module.state_dict()
    names = {table.official(ours): ours for ours in own}
    _refuse(table, "tensors are missing", names.keys() - tensors.keys())
    _refuse(table, "tensors are not the network's", tensors.keys() - names.keys())
    state: dict[str, Tensor] = {}
    for official, ours in names.items():
        tensor, expected = tensors[official], own[ours]
        if tensor.shape != expected.shape:
            raise CheckpointError(
                f"{table.network}: {official} has shape {list(tensor.shape)}, "
                f"expected {list(expected.shape)}",
                _HINT,
            )
        state[ours] = tensor.to(expected.dtype).contiguous()
    module.load_state_dict(state, assign=True)


def to_official(module: nn.Module, table: KeyTable) -> dict[str, Tensor]:
    """The module's tensors under their official names, detached, not copied."""
    return {table.official(ours): tensor for ours, tensor in module.state_dict().items()}


def _refuse(table: KeyTable, fault: str, names: set[str]) -> None:
    if not names:
        return
    shown = ", ".join(sorted(names)[:3])
    if len(names) > 3:
        shown += f" and {len(names) - 3} more"
    raise CheckpointError(f"{table.network}: {fault}: {shown}", _HINT)
