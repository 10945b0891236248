"""`.pt` files as checked tensors: weights only, nothing in them is ever executed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosyvoice_cpu.checkpoint.torch_files import OtherTensor, TorchFileError, read_torch_file
from cosyvoice_cpu.errors import CheckpointError, library_error

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = ("float32", "float16", "bfloat16", "float64")  # scaled formats would need their scales
_WRAPPERS = ("module", "model", "state_dict")  # of DeepSpeed, of many trainers, of Lightning
_PARALLEL = "module."  # DistributedDataParallel's attribute for what it wraps
_SHOWN = 3  # keys listed in an error before "and so many more"
_HINT = "download the file again from the official model folder"


def load_tensors(
    path: Path,
    expected: Mapping[str, tuple[int, ...]],
    skipped: dict[str, str],
    *,
    drop: str = "",
) -> dict[str, Tensor]:
    """The tensors of a flat state dict at `path`, exactly the `expected` keys and shapes.

    `skipped` maps patterns of keys that are left out to the reason; `drop` is removed from every
    key wherever it occurs. What trainers wrap around a state dict is taken off. The file is mapped
    into memory, so float32 tensors cost no memory until read; float16, bfloat16 and float64 ones
    are converted to float32 here.
    Raises CheckpointError naming file and keys: not a torch zip file, damaged, holding anything but
    tensors, missing, unexpected or wrongly shaped keys. Raises MissingExtraError without torch.
    """
    state = _unwrapped(_load(path))
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.replace(drop, "") if drop else key
        if any(re.fullmatch(pattern, name) for pattern in skipped):
            continue
        if name in tensors:
            raise CheckpointError(f"{path} holds {name} twice, once under {key}", _HINT)
        tensors[name] = value
    _check_keys(path, tensors, expected)
    taken = {name: tensors[name] for name in expected}
    _require_own_numbers(path, taken)
    return {name: _as_float32(path, name, tensor) for name, tensor in taken.items()}


def _load(path: Path) -> dict[str, Any]:
    try:
        state = read_torch_file(path)
    except ImportError as error:
        raise library_error(error, "reading a checkpoint needs PyTorch") from None
    except TorchFileError as error:
        raise CheckpointError(f"{path} {error}", _HINT) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict", _HINT)
    for key in state:
        if not isinstance(key, str):
            raise CheckpointError(f"{path} has the key {key!r:.60}, which is not text", _HINT)
    return state


def _unwrapped(state: dict[str, Any]) -> dict[str, Any]:
    """The state dict inside `{"module": ...}` and the like, its keys without `module.` in front.

    Sources: DeepSpeed runtime/engine.py, `save_checkpoint`; PyTorch nn/parallel/distributed.py.
    """
    while (inner := _inside(state)) is not None:
        state = inner
    prefixed = [key for key, value in state.items() if not isinstance(value, (int, float, str))]
    if prefixed and all(key.startswith(_PARALLEL) for key in prefixed):
        return {key.removeprefix(_PARALLEL): value for key, value in state.items()}
    return state


def _inside(state: dict[str, Any]) -> dict[str, Any] | None:
    """What a trainer wrapped; None if nothing is wrapped."""
    for name in _WRAPPERS:
        inner = state.get(name)
        if isinstance(inner, dict) and all(isinstance(key, str) for key in inner):
            return inner
    return None


def _require_own_numbers(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Tensors that share their numbers would be written out in full, each for itself."""
    if sum(tensor.nbytes for tensor in tensors.values()) > path.stat().st_size:
        raise CheckpointError(f"{path} is smaller than its tensors, which share numbers", _HINT)


def _check_keys(
    path: Path, tensors: dict[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> None:
    from torch import Tensor

    old_norm = [key for key in tensors if key.endswith((".weight_g", ".weight_v"))]
    if old_norm:
        raise CheckpointError(
            f"{path} stores weight norm the old way: {_listed(old_norm)}",
            "save it again with torch.nn.utils.parametrizations.weight_norm, as the official files",
        )
    problems = []
    missing = [key for key in expected if key not in tensors]
    if missing:
        problems.append(f"missing {_listed(missing)}")
    unexpected = [key for key in tensors if key not in expected]
    if unexpected:
        problems.append(f"unexpected {_listed(unexpected)}")
    known = {key: value for key, value in tensors.items() if key in expected}
    for key, value in known.items():
        if isinstance(value, OtherTensor):
            raise CheckpointError(f"{path}: {key} is {value.form}", _HINT)
    strange = [key for key, value in known.items() if not isinstance(value, Tensor)]
    if strange:
        problems.append(f"no tensor under {_listed(strange)}")
    wrong = [
        f"{key} {list(value.shape)}, expected {list(expected[key])}"
        for key, value in known.items()
        if isinstance(value, Tensor) and tuple(value.shape) != expected[key]
    ]
    if wrong:
        problems.append(f"wrong shape: {_listed(wrong)}")
    if problems:
        raise CheckpointError(
            f"{path} does not fit its configuration: {'; '.join(problems)}",
            "take weights, YAML and CosyVoice-BlankEN/config.json from the same official folder",
        )


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _as_float32(path: Path, name: str, tensor: Tensor) -> Tensor:
    import torch

    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _FLOATS:
        raise CheckpointError(f"{path}: {name} is stored as {kind}, not as floats", _HINT)
    return tensor.to(torch.float32)
