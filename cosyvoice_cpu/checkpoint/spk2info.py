"""Import the original's saved speakers, `spk2info.pt`.

It stands here and not in `frontend` because it needs torch, and the reader of torch's files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.checkpoint.torch_files import TorchFileError, read_torch_file
from cosyvoice_cpu.errors import SpeakerError, library_error
from cosyvoice_cpu.frontend.prompt_spec import PromptSpec
from cosyvoice_cpu.frontend.speakers import (
    LONGEST_NAME,
    Speaker,
    check_name,
    require_fit,
)
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer

LARGEST_FILE = 1 << 30  # bytes; an entry of 30 s has half a megabyte
# What an entry has, under the original's names and those of async_cosyvoice and older versions.
_NAMES: Final = {
    "embedding": ("flow_embedding", "embedding"),
    "tokens": ("flow_prompt_speech_token", "speech_token"),
    "mel": ("prompt_speech_feat", "speech_feat"),
    "text": ("prompt_text", "prompt_text_token"),
}
_ROUNDING = 2  # tokens; each program rounds the ends of a clip in its own way
_HINT = "give the spk2info.pt of a CosyVoice checkpoint, or one that save_spkinfo wrote"


def import_spk2info(
    path: str | Path, *, tokenizer: TextTokenizer, spec: PromptSpec
) -> list[Speaker]:
    """The speakers of `path`, of the kinds that the original and programs around it write.

    An entry of `add_zero_shot_spk` has tokens, mel and prompt text, from whose ids the system
    prefix is taken off and the transcript decoded. With `embedding` beside them, as people add it
    for `inference_sft`, it is the same speaker. An entry of `embedding` without tokens and mel is
    an embedding alone. Characters that a speaker's name may not have become `_`.
    Raises: SpeakerError naming file and entry, MissingExtraError without torch.
    Source: CosyVoice cosyvoice/cli/cosyvoice.py, `add_zero_shot_spk`, `save_spkinfo`.
    """
    path = Path(path)
    speakers: dict[str, Speaker] = {}
    for key, entry in _load(path).items():
        where = f"{path}, entry {key!r}"
        if not isinstance(key, str) or not isinstance(entry, Mapping):
            raise SpeakerError(f"{where} is no speaker", _HINT)
        speaker = _speaker(where, key, entry, tokenizer, spec)
        if speaker.name in speakers:
            raise SpeakerError(f"{path} has two entries for {speaker.name!r}", "rename one of them")
        require_fit(speaker, spec, where)
        speakers[speaker.name] = speaker
    return list(speakers.values())


def _load(path: Path) -> Mapping[Any, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SpeakerError(f"{path} exceeds {LARGEST_FILE >> 20} MB", _HINT)
        content = read_torch_file(path)
    except OSError as error:
        raise SpeakerError(f"{path} can't be read ({error.strerror})", _HINT) from error
    except ImportError as error:
        raise library_error(error, f"importing {path} needs torch") from None
    except TorchFileError as error:
        raise SpeakerError(f"{path} {error}", _HINT) from None
    if not isinstance(content, Mapping) or not content:
        raise SpeakerError(f"{path} holds no speakers", _HINT)
    return content


def _speaker(
    where: str, key: str, entry: Mapping[str, Any], tokenizer: TextTokenizer, spec: PromptSpec
) -> Speaker:
    names = {field: _present(entry, names) for field, names in _NAMES.items()}
    embedding = _array(where, entry, names["embedding"] or "flow_embedding", np.float32)
    if names["embedding"] == "embedding" and names["tokens"] is names["mel"] is None:
        ids, tokens, mel = [], np.zeros(0, np.int32), np.zeros((0, spec.mel.num_mels), np.float32)
    else:
        ids = _transcript_ids(where, entry, names["text"], tokenizer)
        tokens, mel = _prompt(where, entry, names, spec)
    return Speaker(
        name=check_name(re.sub(r"[^\w.-]|^[.-]", "_", key.strip())[:LONGEST_NAME]),
        generation=spec.generation,
        transcript=tokenizer.decode(ids),
        prompt_text_ids=np.array(ids, np.int32),
        speech_tokens=np.ascontiguousarray(tokens),
        mel=np.ascontiguousarray(mel),
        embedding=np.ascontiguousarray(embedding.reshape(-1)),
    )


def _present(entry: Mapping[str, Any], names: Sequence[str]) -> str | None:
    """The first of `names` that the entry has a value for."""
    return next((name for name in names if entry.get(name) is not None), None)


def _prompt(
    where: str, entry: Mapping[str, Any], names: Mapping[str, str | None], spec: PromptSpec
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Speech tokens [N] and mel [frames of N, 80], cut to one another.

    Raises: SpeakerError if one is missing, or they differ by more than what rounding explains.
    """
    token_name = names["tokens"] or _NAMES["tokens"][0]
    mel_name = names["mel"] or _NAMES["mel"][0]
    tokens = _array(where, entry, token_name, np.int32).reshape(-1)
    mel = _array(where, entry, mel_name, np.float32)
    shape = list(mel.shape)
    if len(shape) != 3 or shape[0] != 1 or shape[2] != spec.mel.num_mels:
        raise SpeakerError(f"{where}: {mel_name} has shape {shape}", _HINT)
    expected = spec.audio.frames_of(tokens.size)
    if abs(shape[1] - expected) > spec.audio.frames_of(_ROUNDING):
        raise SpeakerError(
            f"{where}: {tokens.size} speech tokens and {shape[1]} mel frames disagree; expected"
            f" {expected} frames",
            "make the speaker anew, from one clip: with cache-speaker, or with add_zero_shot_spk",
        )
    count = min(spec.audio.tokens_within(shape[1]), tokens.size)
    return tokens[:count], mel[0, : spec.audio.frames_of(count)]


def _transcript_ids(
    where: str, entry: Mapping[str, Any], name: str | None, tokenizer: TextTokenizer
) -> list[int]:
    """Ids behind the end-of-prompt mark, or all where there is none."""
    if name is None:
        return []
    if isinstance(entry[name], str):
        ids = tokenizer.encode(entry[name])
    else:
        ids = [int(number) for number in _array(where, entry, name, np.int32).reshape(-1)]
    if tokenizer.end_of_prompt_id in ids:
        ids = ids[ids.index(tokenizer.end_of_prompt_id) + 1 :]
    if wrong := [number for number in ids if not 0 <= number < tokenizer.vocabulary_size]:
        raise SpeakerError(f"{where}: text id {wrong[0]} is not in the vocabulary", _HINT)
    return ids


def _array(where: str, entry: Mapping[str, Any], name: str, dtype: type) -> NDArray[Any]:
    import torch

    value = entry.get(name)
    if not isinstance(value, torch.Tensor):
        raise SpeakerError(f"{where} lacks the tensor {name}", _HINT)
    kind = "f" if value.dtype.is_floating_point else "i"
    if value.dtype.is_complex or kind != np.dtype(dtype).kind:
        raise SpeakerError(f"{where}: {name} is {value.dtype}", _HINT)
    array: NDArray[Any] = value.to(torch.float64 if kind == "f" else torch.int64).numpy()
    if kind == "i" and array.size and not 0 <= array.min() <= array.max() < 2**31:
        raise SpeakerError(f"{where}: {name} holds a number that is no id", _HINT)
    return array.astype(dtype)
