"""`.pt` files as checked tensors: weights only, nothing in them is ever executed."""

from __future__ import annotations

import pickle  # for the name of an exception; nothing is unpickled with it
import re
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosyvoice_cpu.errors import CheckpointError, MissingExtraError

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = ("float32", "float16", "bfloat16", "float64")  # scaled formats would need their scales
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
    key wherever it occurs. The file is mapped into memory, so float32 tensors cost no memory until
    read; float16, bfloat16 and float64 ones are converted to float32 here.
    Raises CheckpointError naming file and keys: not a torch zip file, damaged, holding anything but
    tensors, missing, unexpected or wrongly shaped keys. Raises MissingExtraError without torch.
    """
    state = _load(path)
    tensors: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.replace(drop, "") if drop else key
        if any(re.fullmatch(pattern, name) for pattern in skipped):
            continue
        if name in tensors:
            raise CheckpointError(f"{path} holds {name} twice, once under {key}", _HINT)
        tensors[name] = value
    _check_keys(path, tensors, expected)
    return {name: _as_float32(path, name, tensors[name]) for name in expected}


def _load(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        raise MissingExtraError(
            "reading a checkpoint needs PyTorch", 'pip install "cosyvoice-cpu[export]"'
        ) from None
    _check_container(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:  # its own text recommends to load without weights_only
        raise CheckpointError(
            f"{path} holds Python objects besides tensors; reading them could run a program", _HINT
        ) from None
    except Exception as error:  # damaged data surfaces as nearly any exception type
        raise CheckpointError(f"{path} is damaged ({type(error).__name__})", _HINT) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} holds a {type(state).__name__}, not a state dict", _HINT)
    for key in state:
        if not isinstance(key, str):
            raise CheckpointError(f"{path} has the key {key!r:.60}, which is not text", _HINT)
    return state


def _check_container(path: Path) -> None:
    """Tells a state dict's zip file from what else is found under its name."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}", _HINT) from None
    if head.startswith(b"PK\x03\x04"):
        found = _zip_fault(path)
    elif head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 1 << 32:
        found = "a safetensors file under another name"
    elif head.startswith(b"\x80"):
        found = "a bare pickle (PyTorch before 1.6), which can't be read safely"
    else:
        found = "not a PyTorch file"
    if found:
        raise CheckpointError(f"{path} is {found}", _HINT)


def _zip_fault(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, struct.error):
        return "incomplete or damaged: its table of contents, at the end, can't be read"
    if "data.pkl" not in names:
        return "a zip file, but none of PyTorch"
    return "a TorchScript program, not a state dict" if "constants.pkl" in names else ""


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
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise CheckpointError(f"{path}: {name} is not stored as a plain dense tensor", _HINT)
    if kind not in _FLOATS:
        raise CheckpointError(f"{path}: {name} is stored as {kind}, not as floats", _HINT)
    return tensor.detach().to(torch.float32)
