"""Text/audio pairs through the bundle's own front end: what quality is measured on.

A folder holds either `pairs.jsonl` (one object per line with `audio`, a path in the folder, and
`text`; other fields are ignored) or audio files, each with its transcript beside it under the same
name and `.txt`. Without a folder the project's own pairs are taken, which the wheel carries too. A
bundle without front end can't read recordings: there random ids stand in, if they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from cosyvoice_cpu.errors import AudioError, TextError, UsageError
from cosyvoice_cpu.frontend.bundle_models import front_end_models, text_tokenizer
from cosyvoice_cpu.frontend.clip import load_clip
from cosyvoice_cpu.frontend.prepare import prepare_speaker
from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import Utterance, random_utterances

PAIRS = "pairs.jsonl"
Random = Literal["random"]
RANDOM: Random = "random"
T = TypeVar("T")
_AUDIO = (".wav", ".flac", ".ogg", ".mp3")
_LARGEST_TEXT = 2**20  # bytes of a transcript or of the list of pairs
# Observing an item takes one pass through the pipeline, measuring several for each candidate.
_MOST_FITTED, _MOST_HELD_OUT = 16, 4
_RANDOM_ITEMS = 3
_PROMPT_TOKENS, _TOKENS = 50, 100  # 2 s of prompt and 4 s of speech at 25 tokens per second
_LEAST_TOKENS = 10
# Bytes of UTF-8 that a second of speech says: about 15 of English or Chinese, 30 of Russian or
# Thai. What is far outside is the transcript of another recording.
_FEWEST_BYTES, _MOST_BYTES = 2.0, 60.0

_HINT = f"--calibration takes a folder with {PAIRS}, or with audio files and a .txt beside each"


@dataclass(frozen=True)
class Pair:
    """A recording and what is said in it."""

    audio: Path
    text: str


class _Line(msgspec.Struct, frozen=True):
    """What is read of a line of `pairs.jsonl`."""

    audio: str
    text: str


def project_calibration_data() -> Path:
    """The project's own `calibration_data/`: in the installed package, or beside it in a checkout.

    Raises: UsageError where neither has it.
    """
    package = Path(str(resources.files("cosyvoice_cpu")))
    for folder in (package / "calibration_data", package.parent / "calibration_data"):
        if (folder / PAIRS).is_file():
            return folder
    raise UsageError(
        f"this installation lacks the project's calibration data ({package / 'calibration_data'})",
        f"install cosyvoice-cpu from its wheel, or choose: {_HINT}",
    )


def read_pairs(folder: Path) -> list[Pair]:
    """The pairs of `folder`, in order. Raises: UsageError if there is none or one is wrong."""
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", _HINT)
    listed = folder / PAIRS
    pairs = _listed(listed) if listed.is_file() else _side_by_side(folder)
    if not pairs:
        raise UsageError(f"{folder} holds no text/audio pair", _HINT)
    return pairs


@dataclass(frozen=True)
class CalibrationItems:
    """What recipes are fitted to, and what they are measured on."""

    fitted: Sequence[Utterance]
    held_out: Sequence[Utterance]
    origin: str  # as the report names it


def calibration_items(
    stages: BundleStages, calibration: Path | Random | None, progress: Share
) -> CalibrationItems:
    """Items from the text/audio pairs of a folder, of the project's own by default.

    One half of the pairs calibrates, the other is measured on: all of the first up to 16 pairs, a
    few of the second, each from the first to the last since languages come one after the other.
    Raises: UsageError for a folder that can't serve, naming the file that is wrong, and for a
    bundle that can't read recordings unless `calibration` is "random".
    """
    if calibration == RANDOM:
        random = random_utterances(stages.manifest, count=_RANDOM_ITEMS)
        return CalibrationItems(*halves(random), origin="random ids")
    if not {"speaker_encoder", "speech_tokenizer", "text_tokenizer"} <= set(
        stages.manifest.components
    ):
        raise UsageError(
            f"{stages.bundle_path} has no front end, so it can't read calibration data",
            "export the checkpoint without --no-front-end, or choose --calibration random, which "
            "says less of real speech",
        )
    folder = calibration or project_calibration_data()
    fitted, held_out = halves(read_pairs(folder))
    fitted, held_out = _spread(fitted, _MOST_FITTED), _spread(held_out, _MOST_HELD_OUT)
    items = []
    for count, pair in enumerate([*fitted, *held_out]):
        items.append(_item(stages, pair))
        progress((count + 1) / (len(fitted) + len(held_out)))
    if not fitted:
        raise UsageError(
            f"{folder} holds one text/audio pair, too little to calibrate on",
            "give at least two: one to calibrate with, another to measure on",
        )
    return CalibrationItems(items[: len(fitted)], items[len(fitted) :], origin=str(folder))


def halves(pairs: Sequence[T]) -> tuple[Sequence[T], Sequence[T]]:
    """What quantization may be fitted to, and what is held out to measure it on: every other one.

    The first is held out, so a single one leaves nothing to fit to.
    """
    return pairs[1::2], pairs[::2]


def _spread(pairs: Sequence[T], most: int) -> Sequence[T]:
    """`most` of `pairs`, from the first to the last."""
    if len(pairs) <= most:
        return pairs
    return [pairs[round(i * (len(pairs) - 1) / (most - 1))] for i in range(most)]


def _listed(path: Path) -> list[Pair]:
    pairs = []
    lines = _text(path).splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = msgspec.json.decode(line, type=_Line)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise UsageError(f"{path}, line {number}: {error}", _HINT) from error
        if any(not character.isprintable() for character in entry.audio):
            raise UsageError(f"{path}, line {number}: {entry.audio!r} names no file", _HINT)
        folder = os.path.realpath(path.parent)
        audio = Path(os.path.realpath(Path(folder, entry.audio)))
        if not audio.is_relative_to(folder):
            raise UsageError(
                f"{path}, line {number}: {entry.audio} is outside the folder", "copy it there"
            )
        pairs.append(Pair(audio, entry.text))
    return pairs


def _side_by_side(folder: Path) -> list[Pair]:
    pairs = []
    for audio in sorted(path for path in folder.iterdir() if path.suffix.lower() in _AUDIO):
        transcript = audio.with_suffix(".txt")
        if not transcript.is_file():
            raise UsageError(f"{audio} has no transcript {transcript.name}", _HINT)
        pairs.append(Pair(audio, _text(transcript).strip()))
    return pairs


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST_TEXT + 1)
        if len(content) > _LARGEST_TEXT:
            raise UsageError(f"{path} has more than {_LARGEST_TEXT >> 20} MB", _HINT)
        return content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} can't be read as UTF-8 text ({error})", _HINT) from error


def _require_match(pair: Pair, seconds: float) -> None:
    """Raises: UsageError for a text that can't be what is said in so many seconds."""
    spoken = len(pair.text.strip().encode())
    if not _FEWEST_BYTES * seconds <= spoken <= _MOST_BYTES * max(seconds, 1.0):
        raise UsageError(
            f"{pair.audio} lasts {seconds:.1f} s, and its transcript has "
            f"{len(pair.text.strip())} characters: they don't belong together",
            "give each recording the words that are said in it",
        )


def _item(stages: BundleStages, pair: Pair) -> Utterance:
    """The first six seconds: two as prompt, four to be compared."""
    manifest = stages.manifest
    tokenizer = text_tokenizer(stages.bundle)
    assert tokenizer is not None  # the caller looked for the front end
    if not pair.text.strip():
        raise UsageError(f"{pair.audio} has an empty transcript", _HINT)
    try:
        audio, rate = load_clip(pair.audio)
        _require_match(pair, len(audio) / rate)
        speaker = prepare_speaker(
            "calibration",
            audio,
            rate,
            pair.text,
            models=front_end_models(stages.bundle),
            tokenizer=tokenizer,
            spec=prompt_spec(manifest),
            end_of_prompt=manifest.synthesis.end_of_prompt,
        ).speaker
    except (AudioError, TextError) as error:
        raise UsageError(f"{pair.audio} can't calibrate: {error.what}", error.hint) from error
    tokens = speaker.speech_tokens.tolist()[: _PROMPT_TOKENS + _TOKENS]
    prompt = len(tokens) // 3
    if len(tokens) - prompt < _LEAST_TOKENS:
        raise UsageError(
            f"{pair.audio} gives {len(tokens)} speech tokens, too few to measure on",
            "give clips of at least a second",
        )
    synthesis = manifest.synthesis
    frames = manifest.audio.frames_of(prompt)
    return Utterance(
        name=pair.audio.name,
        prompt_text_ids=tokenizer.encode(synthesis.system_prefix + synthesis.end_of_prompt),
        text_ids=speaker.prompt_text_ids.tolist(),
        prompt_tokens=tokens[:prompt],
        tokens=tokens[prompt:],
        prompt_mel=speaker.mel[:frames],
        embedding=speaker.embedding,
    )
