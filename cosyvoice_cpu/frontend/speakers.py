"""The speaker file: everything of a prompt clip that synthesis needs, computed once.

`NAME.safetensors` holds four tensors and a few strings; `docs/bundle.md` lists them. It is read
strictly: what is unknown, missing, doubled or out of range is refused, because a wrong speaker
gives a bad voice and no error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.bundle.safetensors_header import parse_header, with_sorted_metadata
from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend.prompt_spec import PromptSpec

FORMAT: Final = "cosyvoice-cpu-speaker"
FORMAT_VERSION: Final = "1"
SUFFIX: Final = ".safetensors"
LARGEST_FILE: Final = 4 << 20  # bytes; 30 s take half a megabyte
LONGEST_NAME: Final = 64  # characters
LONGEST_NAME_BYTES: Final = 200  # file systems stop at 255, with suffix and temporary names

Ints = NDArray[np.int32]

_DIGEST = re.compile(r"(?:[0-9a-f]{64})?")
_RESERVED = re.compile(r"(?i)(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?")  # device names of Windows
_HINT = "cache the speaker again with `cosyvoice-cpu cache-speaker`"


@dataclass(frozen=True, eq=False)
class Speaker:
    """A voice. N speech tokens; an entry of an embedding alone has N = 0 and no transcript."""

    name: str
    generation: str
    transcript: str  # "" if unknown
    prompt_text_ids: Ints  # [n], of the transcript alone: the system prefix is not in it
    speech_tokens: Ints  # [N], 25 per second
    mel: Floats  # [2 N, 80], log-mel of the flow
    embedding: Floats  # [192], as CAM++ gives it, not normalized
    speaker_encoder_sha256: str = ""  # of the models that made it; "" for an imported speaker
    speech_tokenizer_sha256: str = ""
    created_by: str = f"cosyvoice-cpu {__version__}"

    @property
    def prompt_text(self) -> str | None:
        """The transcript; None if it is unknown."""
        return self.transcript or None

    @property
    def prompt_tokens(self) -> tuple[int, ...]:
        """The speech tokens [N] as plain numbers."""
        return tuple(self.speech_tokens.tolist())

    @property
    def prompt_mel(self) -> Floats:
        """The same as `mel`."""
        return self.mel

    def save(self, path: str | Path) -> None:
        """Write the speaker file, whole or not at all.

        Raises: SpeakerError if a value is not what the format allows, OutputError if the file
        can't be written.
        """
        from safetensors.numpy import save

        path = Path(path)
        _check(self, str(path))
        tensors = {name: getattr(self, name) for name in _TENSORS}
        strings = {name: getattr(self, name) for name in _STRINGS}
        content = with_sorted_metadata(
            save(tensors, {"format": FORMAT, "version": FORMAT_VERSION, **strings})
        )
        if len(content) > LARGEST_FILE:
            raise SpeakerError(
                f"{path} would exceed {LARGEST_FILE >> 20} MB", "take a shorter clip"
            )
        write_file_atomically(path, content)

    @classmethod
    def load(cls, path: str | Path, spec: PromptSpec | None = None) -> Speaker:
        """Read and check a speaker file; with `spec`, also that it fits that bundle.

        The file may have been renamed: its name is the speaker's.
        Raises: SpeakerError naming the file.
        """
        path = Path(path)
        content = _read(path)
        fields: dict[str, Any] = _metadata(path, content) | _tensors(path, content)
        speaker = cls(**fields)
        speaker = replace(speaker, name=check_name(path.name.removesuffix(SUFFIX)))
        _check(speaker, str(path))
        if spec:
            require_fit(speaker, spec, str(path))
        return speaker


_TENSORS: Final = {  # dtype and rank
    "prompt_text_ids": (np.dtype(np.int32), 1),
    "speech_tokens": (np.dtype(np.int32), 1),
    "mel": (np.dtype(np.float32), 2),
    "embedding": (np.dtype(np.float32), 1),
}
_STRINGS: Final = (
    "name",
    "generation",
    "transcript",
    "created_by",
    "speaker_encoder_sha256",
    "speech_tokenizer_sha256",
)


def check_name(name: str) -> str:
    """`name` in NFC, if it may name a speaker and a file.

    Letters and digits of any script, and `.`, `_`, `-` but not in front; at most 64 characters.
    Raises: SpeakerError.
    """
    name = unicodedata.normalize("NFC", name)
    allowed = all(c in "._-" or unicodedata.category(c)[0] in "LMN" for c in name)
    if (
        not name
        or not allowed
        or name[0] in ".-"
        or name[-1] == "."
        or len(name) > LONGEST_NAME
        or len(name.encode()) > LONGEST_NAME_BYTES
        or _RESERVED.fullmatch(name)
    ):
        raise SpeakerError(
            f"{name[: LONGEST_NAME + 1]!r} can't name a speaker",
            f"take letters, digits, '.', '_' and '-', at most {LONGEST_NAME} in all",
        )
    return name


def require_fit(speaker: Speaker, spec: PromptSpec, where: str) -> None:
    """Raises SpeakerError, beginning with `where`, if `speaker` was not made for such a bundle."""
    if speaker.generation != spec.generation:
        raise SpeakerError(
            f"{where} is a speaker for {speaker.generation}, the bundle is {spec.generation}",
            _HINT,
        )
    for component, mine, theirs in (
        ("speaker encoder", speaker.speaker_encoder_sha256, spec.speaker_encoder_sha256),
        ("speech tokenizer", speaker.speech_tokenizer_sha256, spec.speech_tokenizer_sha256),
    ):
        if mine and theirs and mine != theirs:
            raise SpeakerError(
                f"{where} was made with another {component} than the bundle's "
                f"(sha256 {mine[:8]}…, not {theirs[:8]}…)",
                _HINT,
            )
    tokens = speaker.speech_tokens
    if tokens.size and int(tokens.max()) >= spec.speech_vocabulary:
        raise SpeakerError(
            f"{where} has speech token {int(tokens.max())}; the bundle's highest is "
            f"{spec.speech_vocabulary - 1}",
            _HINT,
        )
    mel_shape = (spec.audio.frames_of(tokens.size), spec.mel.num_mels)
    if speaker.mel.shape != mel_shape:
        raise SpeakerError(
            f"{where}: mel of shape {list(speaker.mel.shape)} for {tokens.size} speech tokens; "
            f"expected {list(mel_shape)}",
            _HINT,
        )
    if speaker.embedding.size != spec.embedding_size:
        raise SpeakerError(
            f"{where} has an embedding of {speaker.embedding.size} values; the bundle's have "
            f"{spec.embedding_size}",
            _HINT,
        )


def _check(speaker: Speaker, where: str) -> None:
    """What holds for every speaker, whatever the spec."""
    check_name(speaker.name)
    for name, (dtype, rank) in _TENSORS.items():
        array: NDArray[Any] = getattr(speaker, name)
        if array.dtype != dtype or array.ndim != rank:
            raise SpeakerError(
                f"{where}: {name} is {array.dtype} of shape {list(array.shape)}; "
                f"expected {dtype} of rank {rank}",
                _HINT,
            )
        if dtype.kind == "f" and not np.all(np.isfinite(array)):
            raise SpeakerError(f"{where}: {name} holds values that are not finite", _HINT)
        if dtype.kind == "i" and array.size and int(array.min()) < 0:
            raise SpeakerError(f"{where}: {name} holds a negative id", _HINT)
    if not speaker.embedding.size or not np.any(speaker.embedding):
        raise SpeakerError(f"{where}: the embedding is empty or zero", _HINT)
    tokens, frames = speaker.speech_tokens.size, speaker.mel.shape[0]
    if (tokens == 0) != (frames == 0):
        raise SpeakerError(
            f"{where}: {frames} mel frames for {tokens} speech tokens don't match", _HINT
        )
    if bool(speaker.transcript) != bool(speaker.prompt_text_ids.size):
        raise SpeakerError(f"{where}: transcript and its ids don't match", _HINT)
    for name in ("speaker_encoder_sha256", "speech_tokenizer_sha256"):
        if not _DIGEST.fullmatch(getattr(speaker, name)):
            raise SpeakerError(f"{where}: {name} is not a digest", _HINT)
    if not speaker.generation or not speaker.created_by:
        raise SpeakerError(f"{where}: generation or created_by is empty", _HINT)


def _read(path: Path) -> bytes:
    if path.is_symlink():  # a bundle follows no link out of itself
        raise SpeakerError(f"{path} is a symbolic link", "copy the speaker file itself")
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise SpeakerError(f"{path} is not a file", _HINT)
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SpeakerError(f"{path} can't be read ({error.strerror})", _HINT) from error
    if len(content) > LARGEST_FILE:
        raise SpeakerError(f"{path} exceeds {LARGEST_FILE >> 20} MB: no speaker file", _HINT)
    return content


def _metadata(path: Path, content: bytes) -> dict[str, str]:
    """The strings of the file's header, after a check that it has exactly the format's keys."""
    try:
        header = parse_header(BytesIO(content), len(content))
    except ValueError as error:
        raise SpeakerError(f"{path} is damaged or no speaker file: {error}", _HINT) from error
    metadata = dict(header.metadata)
    file_format, version = metadata.pop("format", None), metadata.pop("version", None)
    if file_format != FORMAT:
        raise SpeakerError(f"{path} is no speaker file (format {file_format!r:.200})", _HINT)
    if version != FORMAT_VERSION:
        raise SpeakerError(
            f"{path} has version {version!r:.200}; this program reads {FORMAT_VERSION}",
            "update cosyvoice-cpu, or cache the speaker again",
        )
    _same_keys(path, "field", metadata, _STRINGS)
    _same_keys(path, "tensor", header.tensors, tuple(_TENSORS))
    return metadata


def _tensors(path: Path, content: bytes) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(content))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise SpeakerError(f"{path} is damaged ({error})", _HINT) from error


def _same_keys(path: Path, kind: str, found: Mapping[str, Any], expected: tuple[str, ...]) -> None:
    if missing := [name for name in expected if name not in found]:
        raise SpeakerError(f"{path} lacks the {kind} {missing[0]}", _HINT)
    if unknown := [name for name in found if name not in expected]:
        raise SpeakerError(f"{path} has an unknown {kind} {unknown[0]!r:.200}", _HINT)
