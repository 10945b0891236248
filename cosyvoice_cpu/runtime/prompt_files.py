"""What the flow computes of a prompt, kept in the user's cache and mapped by all processes.

At full size a prompt of 5 s takes seven seconds of computing and 450 MB, so a file is written only
when it is asked for (`cosyvoice-cpu cache-speaker --prefill`). Its name is a digest of the
speaker, the flow's files and the solver, so nothing stale is found. It is a safetensors file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.bundle.manifest import Manifest, SolverPreset
from cosyvoice_cpu.bundle.safetensors_header import Header, read_header
from cosyvoice_cpu.errors import OutputError
from cosyvoice_cpu.runtime.prompt_past import PromptPast, preset_digest
from cosyvoice_cpu.system.cache_folder import cache_folder, is_private

_FORMAT = b"2"
_TYPES: Mapping[str, type[np.generic]] = {"F16": np.float16, "F32": np.float32}


class PromptFiles:
    """The files of one bundle's prompts."""

    def __init__(self, manifest: Manifest) -> None:
        digest = hashlib.sha256(_FORMAT)
        for name in ("flow_encoder", "flow_estimator"):
            component = manifest.components.get(name)
            for entry in component.files if component else ():
                digest.update(f"{entry.path} {entry.sha256} ".encode())
        digest.update(repr(manifest.synthesis.silent_tokens).encode())
        self._bundle = digest.digest()

    def path(self, voice: bytes, exact: bool, preset: SolverPreset) -> Path | None:
        """Where the past of the prompt with the digest `voice` is kept; None without a cache."""
        folder = cache_folder()
        key = self._bundle + voice + bytes([exact]) + preset_digest(preset)
        name = hashlib.sha256(key).hexdigest()
        return folder / "prompts" / f"{name}.safetensors" if folder else None

    def load(
        self, voice: bytes, exact: bool, preset: SolverPreset, shapes: Sequence[tuple[int, ...]]
    ) -> PromptPast | None:
        """The past of a prompt, mapped; None if there is none that can be relied on.

        `shapes` are those of `PromptPast.attended`, 0 for what any size fits.
        """
        path = self.path(voice, exact, preset)
        try:
            if path is None or not path.is_file() or not is_private(path.stat()):
                return None
            header = read_header(path)
            attended, history = (
                [_mapped(path, header, f"{name}.{index}") for index in range(len(shapes))]
                for name in ("attended", "history")
            )
        except (OSError, ValueError, KeyError):
            return None
        fits = all(
            len(array.shape) == len(shape)
            and all(wanted in (0, found) for wanted, found in zip(shape, array.shape, strict=True))
            for array, shape in zip(attended, shapes, strict=True)
        )
        frames = {array.shape[4] for array in attended} if fits else set()
        return PromptPast(frames.pop(), attended, history) if len(frames) == 1 else None

    def save(self, voice: bytes, exact: bool, preset: SolverPreset, past: PromptPast) -> Path:
        """Keep the past of a prompt; returns its file.

        Raises: OutputError without a cache, or if it can't be written.
        """
        from safetensors.numpy import save

        path = self.path(voice, exact, preset)
        if path is None:
            raise OutputError(
                "this user has no cache folder", "set COSYVOICE_CPU_CACHE to a folder"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"the cache folder {path.parent} can't be made ({error.strerror})",
                "set COSYVOICE_CPU_CACHE to a folder that can be written",
            ) from error
        parts: dict[str, Sequence[NDArray[Any]]] = {
            "attended": past.attended,
            "history": past.history,
        }
        tensors = {
            f"{name}.{index}": part
            for name, sequence in parts.items()
            for index, part in enumerate(sequence)
        }
        write_file_atomically(path, save(tensors))
        return path


def _mapped(path: Path, header: Header, name: str) -> NDArray[Any]:
    """Raises: KeyError or ValueError if the file holds something else."""
    entry = header.tensors[name]
    offset = header.start + entry["data_offsets"][0]
    return np.memmap(path, _TYPES[entry["dtype"]], "r", offset, tuple(entry["shape"]))
