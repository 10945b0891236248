"""An official model folder: which generation it is, what is missing, and its tensors."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosyvoice_cpu.bundle.digests import sha256_of_stream
from cosyvoice_cpu.bundle.strict_json import parse_json
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.checkpoint.sections import Section
from cosyvoice_cpu.checkpoint.state_dicts import load_tensors
from cosyvoice_cpu.checkpoint.yaml_reader import read_hyperpyyaml
from cosyvoice_cpu.errors import CheckpointError, UsageError
from cosyvoice_cpu.generations import GENERATIONS, Generation

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("speech_lm", "flow", "vocoder")

# Official YAML names in the order in which the original looks for them (cosyvoice/cli/cosyvoice.py
# AutoModel): there a left-over file silently picks the wrong class, here it is refused.
_YAML_FILES = {
    "cosyvoice.yaml": "CosyVoice-300M",
    "cosyvoice2.yaml": "CosyVoice2-0.5B",
    "cosyvoice3.yaml": "Fun-CosyVoice3-0.5B",
}
_LANGUAGE_MODELS = {  # the class under `llm` of each generation's YAML to the generation
    "cosyvoice.llm.llm.TransformerLM": "CosyVoice-300M",
    "cosyvoice.llm.llm.Qwen2LM": "CosyVoice2-0.5B",
    "cosyvoice.llm.llm.CosyVoice3LM": "Fun-CosyVoice3-0.5B",
}
_LARGEST_JSON = 1 << 20  # bytes; an official config.json has 700


@dataclass(frozen=True)
class FileDigest:
    """Size in bytes and SHA-256 (64 lowercase hex digits) of one file."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Checkpoint:
    """An official model folder whose files are all there and whose configuration fits."""

    folder: Path
    generation: Generation
    config: CheckpointConfig
    has_front_end: bool
    speech_lm: str  # key of generation.speech_lm_files: "base" or "rl"

    @property
    def files(self) -> tuple[str, ...]:
        """The used files, relative to the folder, with forward slashes."""
        return tuple(_used_files(self.generation, self.speech_lm, self.has_front_end))

    def path(self, file: str) -> Path:
        """Where one of `files` is."""
        return self.folder / file

    def tensors(self, part: str, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Official key to float32 tensor of `part`: "speech_lm", "flow" or "vocoder".

        `expected` are the keys and shapes that the networks of the part have; keys that no network
        needs are left out. Vocoder keys are without `generator.`. float32 tensors are views of the
        file, read when touched; half precision is converted here.
        Raises CheckpointError naming the file and the keys that don't fit, ValueError for an
        unknown part, MissingExtraError without torch.
        """
        if part not in PARTS:
            raise ValueError(f"unknown part {part!r}; known: {', '.join(PARTS)}")
        adapter = import_module(self.generation.checkpoint_adapter)
        files = {
            "speech_lm": self.generation.speech_lm_files[self.speech_lm],
            "flow": self.generation.flow_file,
            "vocoder": self.generation.vocoder_file,
        }
        return load_tensors(
            self.path(files[part]),
            expected,
            adapter.SKIPPED_KEYS[part],
            # cosyvoice/cli/model.py deletes it everywhere, not only in front
            drop="generator." if part == "vocoder" else "",
        )

    def digests(self) -> dict[str, FileDigest]:
        """Size and SHA-256 of every used file; reads them all once."""
        return {file: _digest(self.path(file)) for file in self.files}


def open_checkpoint(folder: Path, *, speech_lm: str = "base", front_end: bool = True) -> Checkpoint:
    """The checkpoint in `folder`, its files present and its configuration read; no weights yet.

    `speech_lm` picks among the generation's language models ("base", "rl"). Without `front_end`
    neither the ONNX models nor the text vocabulary need to be there.
    Raises CheckpointError naming every missing or unusable file at once, or the entry of the
    configuration that does not fit; UsageError for an unknown `speech_lm`.
    """
    generation = _detect(folder)
    if speech_lm not in generation.speech_lm_files:
        known = ", ".join(generation.speech_lm_files)
        raise UsageError(f"{generation.title} has no speech LM {speech_lm!r}", f"known: {known}")
    _check_speech_lm(folder, generation, speech_lm)
    _check_files(folder, _used_files(generation, speech_lm, front_end))
    yaml_file = folder / generation.yaml_file
    text_model = folder / generation.text_folder / "config.json"
    tree = read_hyperpyyaml(yaml_file)
    _check_description(yaml_file, tree)
    config = import_module(generation.checkpoint_adapter).read_config(
        yaml_file, tree, Section(text_model, _read_json(text_model))
    )
    return Checkpoint(folder, generation, config, front_end, speech_lm)


def _detect(folder: Path) -> Generation:
    if not os.path.exists(folder):  # unlike Path.exists, False also where access is denied
        raise CheckpointError(f"{folder} does not exist", "give an official model folder")
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is a file", "give the model folder that holds llm.pt")
    found = [name for name in _YAML_FILES if os.path.exists(folder / name)]
    if not found:
        raise CheckpointError(
            f"{folder} holds none of {', '.join(_YAML_FILES)}",
            "give an official CosyVoice model folder, such as Fun-CosyVoice3-0.5B",
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{folder} holds several model descriptions: {', '.join(found)}",
            "keep only the one that belongs to the weights beside it",
        )
    for generation in GENERATIONS.values():
        if generation.yaml_file == found[0]:
            return generation
    try:
        tree = read_hyperpyyaml(folder / found[0])
    except CheckpointError:  # of a generation that is not read anyway
        tree = {}
    _check_description(folder / found[0], tree)
    raise CheckpointError(
        f"{folder} is a {_YAML_FILES[found[0]]} model ({found[0]}), not supported yet",
        _supported(),
    )


def _check_description(yaml_file: Path, tree: dict[str, Any]) -> None:
    """Raises: CheckpointError if the file describes another generation than its name says."""
    described = getattr(tree.get("llm"), "target", "")
    title = _LANGUAGE_MODELS.get(described)
    if title is None or title == _YAML_FILES[yaml_file.name]:
        return
    name = next(name for name, other in _YAML_FILES.items() if other == title)
    known = any(generation.yaml_file == name for generation in GENERATIONS.values())
    raise CheckpointError(
        f"{yaml_file} describes a {title} model ({described})",
        f"rename it to {name}, as in the official folder" if known else _supported(),
    )


def _supported() -> str:
    return "supported: " + ", ".join(generation.title for generation in GENERATIONS.values())


def _check_speech_lm(folder: Path, generation: Generation, speech_lm: str) -> None:
    """Raises: CheckpointError if the folder has not this speech LM, but another one."""
    files = generation.speech_lm_files
    if os.path.exists(folder / files[speech_lm]):
        return
    for other, file in files.items():
        if os.path.exists(folder / file):
            raise CheckpointError(
                f"{folder} has no {files[speech_lm]}, but {file}",
                f"take that one with --speech-lm {other}, or download the other",
            )


def _used_files(generation: Generation, speech_lm: str, front_end: bool) -> list[str]:
    text = generation.text_folder
    files = [
        generation.yaml_file,
        f"{text}/config.json",
        generation.speech_lm_files[speech_lm],
        generation.flow_file,
        generation.vocoder_file,
    ]
    if front_end:
        files += [
            generation.speaker_encoder_file,
            generation.speech_tokenizer_file,
            f"{text}/vocab.json",
            f"{text}/merges.txt",
        ]
    return files


def _check_files(folder: Path, files: list[str]) -> None:
    """One error for everything that is missing or visibly not what its name says."""
    problems: dict[str, list[str]] = {}
    for file in files:
        problem = _problem(folder / file)
        if problem:
            problems.setdefault(problem, []).append(file)
    if not problems:
        return
    listed = "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items())
    hint = "download the model again, whole"
    if "Git LFS pointer instead of the file" in problems:
        hint = "run `git lfs pull` in the folder"
    raise CheckpointError(f"{folder} is incomplete: {listed}", hint)


def _problem(path: Path) -> str:
    if not os.path.exists(path):
        if path.is_symlink():
            return "a link to a file that is not there"
        other = path.with_suffix(".safetensors")
        if path.suffix == ".pt" and os.path.exists(other):
            return f"missing, and {other.name} is no substitute: official models have .pt files"
        return "missing"
    if not path.is_file():
        return "not a file"
    try:
        with path.open("rb") as file:
            head = file.read(256)
    except OSError:
        return "not readable"
    if not head:
        return "empty"
    if head.startswith(b"version https://git-lfs"):
        return "Git LFS pointer instead of the file"
    if head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page instead of the file"
    return ""


def _read_json(path: Path) -> dict[str, Any]:
    hint = "copy the file again from the official model folder"
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST_JSON + 1)
        if len(text) > _LARGEST_JSON:
            raise CheckpointError(f"{path} is larger than {_LARGEST_JSON} bytes", hint)
        content = parse_json(text.decode("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}", hint) from None
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}", hint) from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} is not a JSON object", hint)
    return content


def _digest(path: Path) -> FileDigest:
    try:
        with path.open("rb", buffering=0) as file:
            return FileDigest(os.fstat(file.fileno()).st_size, sha256_of_stream(file))
    except OSError as error:
        raise CheckpointError(f"{path} can't be read: {error.strerror}") from None
