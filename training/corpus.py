"""The generated corpus: shards of flat arrays, memory-mapped.

    DIR/train-0000/index.json      one entry per text: text, speaker, tokens, units, phoneme ids
                   audio.npy       int16   [960 N]     24 kHz
                   mel.npy         float16 [2 N, 80]   50 Hz, natural logarithm
                   log_mel.npy     float16 [4 N, 128]  100 Hz, whisper's
                   f0.npy          float32 [2 N]       Hz, 0 = unvoiced
                   phase.npy       float32 [2 N]       cycles at the end of each frame
                   units.npy       uint8   [U]         phoneme id of every 25 ms
    DIR/train-9000, ..: a further voice each; 9000 + N says what train-N does, token by token
    DIR/heldout-0000: the same, never trained on
    DIR/clips-0000 .., DIR/heldclips-0000 ..: a minute of each further voice

with N speech tokens in all. A shard is written beside its place and renamed, so it is whole or
absent, and it depends only on its name: making a corpus again, or longer, never changes a finished
shard.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.frontend import mel_spectrogram, resample, whisper_log_mel
from training.sentences import SentenceMaker, Vocabulary
from training.sizes import SAMPLE_RATE, SAMPLES_PER_TOKEN

if TYPE_CHECKING:
    from training.speech import Speech, Voice

TEXTS_PER_SHARD = 500
HELDOUT_TEXTS = 200
FIRST_FURTHER = 9000
CLIP_TEXTS = 14  # of each further voice, for the speaker encoder
HELD_CLIP_TEXTS = 4
_PER_TOKEN = {"audio": SAMPLES_PER_TOKEN, "mel": 2, "log_mel": 4, "f0": 2, "phase": 2}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Utterance:
    """One text and views into its shard; shapes as in the module's description, N = `tokens`."""

    text: str
    speaker: str
    tokens: int
    phonemes: tuple[int, ...]
    audio: NDArray[np.int16]
    mel: NDArray[np.float16]
    log_mel: NDArray[np.float16]
    f0: NDArray[np.float32]
    phase: NDArray[np.float32]
    units: NDArray[np.uint8]


def make_corpus(folder: Path, voice: Voice, vocabulary: Vocabulary, hours: float) -> None:
    """Write the held-out shard, then training shards until `folder` holds `hours` of audio.

    Training texts equal to a held-out one are left out. Shards that exist are kept as they are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    maker = SentenceMaker(vocabulary, f"heldout-{voice.name}")
    texts = [maker.reading_sentence() for _ in range(HELDOUT_TEXTS)]
    _make_shard(folder / "heldout-0000", voice, texts)
    heldout = {utterance.text for utterance in Corpus(folder, "heldout")}
    seconds, number = 0.0, 0
    while seconds < hours * 3600:
        name = f"train-{number:04d}"
        maker = SentenceMaker(vocabulary, f"{name}-{voice.name}")
        texts = [t for t in (maker.sentence() for _ in range(TEXTS_PER_SHARD)) if t not in heldout]
        seconds += _make_shard(folder / name, voice, texts)
        number += 1
        logger.info("%s: %.2f h of training audio", name, seconds / 3600)


def make_further(folder: Path, voice: Voice, number: int) -> None:
    """Let a further voice say the texts of the training shard `number`, with its seeds."""
    of = f"train-{number:04d}"
    texts = [utterance.text for utterance in Corpus(folder, "train", only=of)]
    _make_shard(folder / f"train-{FIRST_FURTHER + number:04d}", voice, texts, seeds_of=of)


def make_clips(folder: Path, voice: Voice, vocabulary: Vocabulary, number: int) -> None:
    """Write the shards `clips-NUMBER` and `heldclips-NUMBER` of one voice, unless they exist."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("clips", CLIP_TEXTS), ("heldclips", HELD_CLIP_TEXTS)):
        maker = SentenceMaker(vocabulary, f"{split}-{voice.name}")
        texts = [maker.reading_sentence() for _ in range(count)]
        _make_shard(folder / f"{split}-{number:04d}", voice, texts)


def _make_shard(path: Path, voice: Voice, texts: list[str], seeds_of: str = "") -> float:
    """Write one shard, with the seeds of its own name or another's, unless it exists; its seconds
    of audio.
    """
    if not path.exists():
        first_seed = int.from_bytes((seeds_of or path.name).encode(), "big") % 2**31
        spoken = [voice.speak(text, first_seed + i) for i, text in enumerate(texts)]
        _write(path, [speech for speech in spoken if speech is not None], voice.name)
    index = json.loads((path / "index.json").read_text(encoding="utf-8"))
    return float(sum(entry["tokens"] for entry in index)) / 25


def _write(path: Path, speeches: list[Speech], speaker: str) -> None:
    part = path.with_name(path.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    arrays: dict[str, list[NDArray[Any]]] = {name: [] for name in (*_PER_TOKEN, "units")}
    for speech in speeches:
        audio = speech.audio.astype(np.float32) / np.float32(32768)
        arrays["audio"].append(speech.audio)
        arrays["mel"].append(mel_spectrogram(audio).astype(np.float16))
        arrays["log_mel"].append(
            whisper_log_mel(resample(audio, SAMPLE_RATE, 16000)).T.astype(np.float16)
        )
        arrays["f0"].append(speech.f0)
        arrays["phase"].append(speech.phase)
        arrays["units"].append(speech.units)
    for name, parts in arrays.items():
        np.save(part / f"{name}.npy", np.concatenate(parts))
    index = [
        {
            "text": speech.text,
            "speaker": speaker,
            "tokens": len(speech.f0) // 2,
            "units": len(speech.units),
            "phonemes": speech.phonemes,
        }
        for speech in speeches
    ]
    (part / "index.json").write_text(json.dumps(index), encoding="utf-8")
    os.rename(part, path)


class Corpus:
    """All shards of one split, in order of their names; utterances by number."""

    def __init__(
        self, folder: Path, split: str, max_shards: int | None = None, only: str | None = None
    ) -> None:
        """The first `max_shards` shards of `split`, or the `only` one of that name.

        Raises FileNotFoundError when there is none.
        """
        paths = sorted(p for p in folder.glob(only or f"{split}-????") if p.is_dir())[:max_shards]
        if not paths:
            raise FileNotFoundError(f"{folder} holds no {split} shard")
        self._arrays: list[dict[str, NDArray[Any]]] = []
        self._entries: list[tuple[int, dict[str, Any], int, int]] = []
        for number, path in enumerate(paths):
            names = (*_PER_TOKEN, "units")
            self._arrays.append({n: np.load(path / f"{n}.npy", mmap_mode="r") for n in names})
            token = unit = 0
            for entry in json.loads((path / "index.json").read_text(encoding="utf-8")):
                self._entries.append((number, entry, token, unit))
                token += entry["tokens"]
                unit += entry["units"]
        self.tokens = np.array(
            [entry["tokens"] for _, entry, _, _ in self._entries]
        )  # [utterances]
        self.speakers = np.array([entry["speaker"] for _, entry, _, _ in self._entries])

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, number: int) -> Utterance:
        shard, entry, token, unit = self._entries[number]
        arrays = self._arrays[shard]
        end = token + entry["tokens"]
        views = {name: arrays[name][token * k : end * k] for name, k in _PER_TOKEN.items()}
        return Utterance(
            text=entry["text"],
            speaker=entry["speaker"],
            tokens=entry["tokens"],
            phonemes=tuple(entry["phonemes"]),
            units=arrays["units"][unit : unit + entry["units"]],
            **views,
        )

    def chances(self) -> NDArray[np.float64]:
        """How often each utterance should be drawn [utterances]: by its length, and a speaker by
        the fourth root of all of theirs, so that half an hour is heard beside many hours.
        """
        share: NDArray[np.float64] = self.tokens.astype(np.float64)
        for speaker in np.unique(self.speakers):
            own = self.speakers == speaker
            share[own] /= share[own].sum() ** 0.75
        share /= share.sum()
        return share

    def __iter__(self) -> Iterator[Utterance]:
        return (self[i] for i in range(len(self)))
