"""Whether a bundle speaks in the voice of a clip: similarity to clips of the same speaker and of
others.

    python -m tools.compare_voices BUNDLE CLIPS --output FOLDER
        [--speaker NAME ...] [--sentences N]

CLIPS holds a folder per speaker with two or more clips. Of each speaker the first clip is the
prompt; what is spoken with it is compared with the other clips of the same speaker and with those
of all others. The clips among themselves show the cosines of real pairs. FOLDER gets
`voices.md` and `voices.csv`.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import output_error, write_file_atomically
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.evaluation.quality.speakers import (
    BundleSpeakerEncoder,
    SpeakerEncoder,
    cosine,
    load_resemblyzer,
    missing_packages,
)
from cosyvoice_cpu.frontend.bundle_models import front_end_models
from cosyvoice_cpu.frontend.clip import load_clip
from cosyvoice_cpu.frontend.resampling import resample
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.synthesis.synthesizer import Synthesizer, speaker_from_clip
from cosyvoice_cpu.system.threads import resolve_threads
from tools.failures import reports_failures

SENTENCES = 12
_AUDIO = (".flac", ".wav", ".ogg", ".mp3")
_ENCODER_RATE = 16_000  # Hz
_LOW, _HIGH = 5, 95  # percentiles shown


@dataclass(frozen=True)
class Spread:
    """How alike one kind of pairs is: cosines [n]."""

    speaker: str  # "clips" for pairs of clips of all speakers
    pairs: str  # "same speaker" or "other speakers"
    cosines: NDArray[np.float64]

    def percentile(self, share: float) -> float:
        """The cosine that `share` percent of the pairs lie below."""
        return float(np.percentile(self.cosines, share))


def clips_by_speaker(folder: Path) -> dict[str, list[Path]]:
    """The audio files of each speaker, sorted. Raises: UsageError unless two speakers have two."""
    if not folder.is_dir():
        raise UsageError(
            f"there is no folder {folder}", "give a folder with one folder per speaker"
        )
    found = {
        own.name: sorted(path for path in own.iterdir() if path.suffix.lower() in _AUDIO)
        for own in sorted(path for path in folder.iterdir() if path.is_dir())
    }
    speakers = {name: clips for name, clips in found.items() if len(clips) > 1}
    if len(speakers) < 2:
        raise UsageError(
            f"{folder} has {len(speakers)} speaker with two clips or more",
            "put at least two clips of two speakers each into folders of their own",
        )
    return speakers


def compare_voices(
    speak: Callable[[Path], list[Floats]],
    speakers: dict[str, list[Path]],
    encoder: SpeakerEncoder,
    spoken_as: Sequence[str],
) -> list[Spread]:
    """Spreads of the speakers in `spoken_as`, then of the clips among themselves.

    `speak` gives utterances [n] at 16 kHz in the voice of a clip.
    Raises: UsageError for a speaker without clips, or when there is nothing to compare.
    """
    unknown = sorted(set(spoken_as) - set(speakers))
    if unknown:
        raise UsageError(
            f"{', '.join(unknown)} has no two clips", f"take of {', '.join(sorted(speakers))}"
        )
    clips = {
        name: [_embedding(encoder, _load(clip), clip.name) for clip in own[1:]]
        for name, own in speakers.items()
    }
    spreads = []
    for name in spoken_as:
        spoken = [
            _embedding(encoder, audio, f"speech as {name}") for audio in speak(speakers[name][0])
        ]
        others = [clip for other, own in clips.items() if other != name for clip in own]
        for pairs, other in (("same speaker", clips[name]), ("other speakers", others)):
            spreads.append(Spread(name, pairs, _cosines(spoken, other)))
    flat = [(name, clip) for name, own in clips.items() for clip in own]
    pairs_of = [(a, b) for i, a in enumerate(flat) for b in flat[i + 1 :]]
    for kind, same in (("same speaker", True), ("other speakers", False)):
        values = [cosine(a[1], b[1]) for a, b in pairs_of if (a[0] == b[0]) == same]
        if values:
            spreads.append(Spread("clips", kind, np.asarray(values)))
    return spreads


def to_markdown(spreads: Sequence[Spread], encoder: str) -> str:
    """A row per speaker and kind of pairs."""
    lines = [
        f"Cosines of {encoder}.",
        "",
        f"| voice | against clips of | pairs | mean | {_LOW} to {_HIGH} % | lowest | highest |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    for spread in spreads:
        values = spread.cosines
        lines.append(
            f"| {spread.speaker} | {spread.pairs} | {len(values)} | {values.mean():.3f} "
            f"| {spread.percentile(_LOW):.3f} to {spread.percentile(_HIGH):.3f} "
            f"| {values.min():.3f} | {values.max():.3f} |"
        )
    return "\n".join(lines) + "\n"


def to_csv(spreads: Sequence[Spread]) -> str:
    """A row per pair."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["voice", "against clips of", "cosine"])
    for spread in spreads:
        for value in spread.cosines:
            writer.writerow([spread.speaker, spread.pairs, f"{value:.4f}"])
    return text.getvalue()


def speaker_voice(stages: BundleStages, sentences: int) -> Callable[[Path], list[Floats]]:
    """What `compare_voices` takes: the first `sentences` of the list in a clip's voice, 16 kHz.

    The clip is used without transcript, as nobody need know what is said in it.
    """
    synthesizer = Synthesizer.of_bundle(stages)
    texts = [sentence.text for sentence in first_sentences(sentences)]

    def speak(clip: Path) -> list[Floats]:
        speaker = speaker_from_clip(stages.bundle, clip.parent.name, clip).speaker
        spoken = [
            synthesizer.speak(text, speaker=speaker, seed=seed) for seed, text in enumerate(texts)
        ]
        return [resample(audio.samples, audio.sample_rate, _ENCODER_RATE) for audio in spoken]

    return speak


def _load(clip: Path) -> Floats:
    samples, rate = load_clip(clip)
    return resample(samples, rate, _ENCODER_RATE)


def _embedding(encoder: SpeakerEncoder, audio: Floats, name: str) -> Floats:
    embedding = encoder.embed(audio)
    if embedding is None:
        raise UsageError(f"{name} has too little speech", "give clips of two seconds or more")
    return embedding


def _cosines(spoken: Sequence[Floats], others: Sequence[Floats]) -> NDArray[np.float64]:
    return np.asarray([cosine(a, b) for a in spoken for b in others])


@reports_failures
def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0, or 2 for what can't be done."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.compare_voices",
        description="Similarity of spoken voices to clips of the same speaker and of others.",
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("clips", type=Path, help="a folder with a folder of clips per speaker")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--speaker", action="append", help="speak only as these; default: all")
    parser.add_argument("--sentences", type=int, default=SENTENCES)
    parser.add_argument("--threads", type=int)
    given = parser.parse_args(arguments)
    speakers = clips_by_speaker(given.clips)
    stages = BundleStages.load(given.bundle, threads=resolve_threads(given.threads))
    encoder = (
        BundleSpeakerEncoder(front_end_models(stages.bundle))
        if missing_packages()
        else load_resemblyzer()
    )
    speak = speaker_voice(stages, given.sentences)
    spreads = compare_voices(speak, speakers, encoder, given.speaker or list(speakers))
    try:
        given.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(given.output, error) from error
    table = to_markdown(spreads, encoder.name)
    write_file_atomically(given.output / "voices.md", table.encode())
    write_file_atomically(given.output / "voices.csv", to_csv(spreads).encode())
    print(table, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
