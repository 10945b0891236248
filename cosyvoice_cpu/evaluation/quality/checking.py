"""`verify --quality`: from paths to a judged table.

What a bundle is compared with, if nothing is named: the embedded checkpoint, where it was made from
that; else nothing, and only what it says by itself is judged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.digests import sha256_of_files
from cosyvoice_cpu.bundle.manifest import Manifest
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import MissingExtraError, UsageError
from cosyvoice_cpu.evaluation.parity.verify import speech_lm_of
from cosyvoice_cpu.evaluation.quality.comparison import compare
from cosyvoice_cpu.evaluation.quality.estimators import Ears
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, Measure
from cosyvoice_cpu.evaluation.quality.recogniser import load_recogniser
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.evaluation.quality.speakers import BundleEncoder, load_resemblyzer
from cosyvoice_cpu.evaluation.quality.systems import Setting, Side
from cosyvoice_cpu.evaluation.quality.table import QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import (
    ALONE,
    Verdict,
    floors_against,
    judge,
    passes,
)
from cosyvoice_cpu.evaluation.quality.words import normalized_words
from cosyvoice_cpu.frontend.prompt_spec import voice_model
from cosyvoice_cpu.frontend.speaker_folders import find_speaker, list_speakers
from cosyvoice_cpu.progress import Progress, no_progress
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.stages import load_reference
from cosyvoice_cpu.synthesis.prompts import Prompt, build_prompt
from cosyvoice_cpu.synthesis.rules import synthesis_rules
from cosyvoice_cpu.utterances import random_utterances

DEFAULT_ITEMS = 20
_SAFE_TEXT_IDS = 200  # single bytes of every byte-level vocabulary: present in all


@dataclass(frozen=True)
class QualityReport:
    """The table, and what became of each floor."""

    table: QualityTable
    verdicts: Sequence[Verdict]

    @property
    def passed(self) -> bool:
        """Whether no floor was missed."""
        return passes(self.verdicts)

    @property
    def missed(self) -> list[Verdict]:
        """The floors that were missed."""
        return [verdict for verdict in self.verdicts if verdict.passed is False]


def check_quality(
    bundle: Path,
    *,
    checkpoint: Path | None = None,
    against: Path | None = None,
    items: int = DEFAULT_ITEMS,
    measures: Sequence[Measure] = MEASURES,
    speakers: Path | None = None,
    threads: int = 1,
    seed: int = 0,
    draws: int = 1,
    pictures: Path | None = None,
    progress: Progress = no_progress,
) -> QualityReport:
    """Measure the bundle on the first `items` sentences of the list and judge it by the floors.

    Its first speaker (of the folder `speakers`, else of its own) reads; without one, and without a
    text tokenizer, fixed random ids stand in, which show every difference from a reference though
    nobody could understand them.
    Each sentence is spoken `draws` times, with seeds of its own.
    Raises: UsageError for two references or one of another model, BundleError, CheckpointError,
    SpeakerError, SynthesisError for values that are not finite, OutputError.
    """
    stages = BundleStages(open_bundle(bundle), threads)
    notes: list[str] = []
    reference = _reference(stages, checkpoint, against, threads)
    setting = setting_of(stages, speakers, notes)
    ears = ears_for(stages, threads, notes)
    floors = ALONE
    if reference:
        sides = [side.stages for side in (reference, Side(str(bundle), stages))]
        floors = floors_against([s.manifest for s in sides if isinstance(s, BundleStages)])
    if ears.judge is None or isinstance(ears.judge, BundleEncoder):
        # The floors are on Resemblyzer's scale; another encoder's cosines mean other things.
        floors = tuple(floor for floor in floors if not floor.measure.endswith("_similarity"))
    table = compare(
        reference,
        Side(str(bundle), stages),
        first_sentences(items),
        measures,
        setting=setting,
        ears=ears,
        seed=seed,
        draws=draws,
        pictures=pictures,
        notes=notes,
        progress=progress,
    )
    return QualityReport(table, judge(table.rows(), floors))


def _reference(
    stages: BundleStages, checkpoint: Path | None, against: Path | None, threads: int
) -> Side | None:
    """The side to compare with, None for none. Raises: UsageError if it is of another model."""
    if checkpoint and against:
        raise UsageError(
            "a bundle is compared with one thing at a time", "give --checkpoint or --against"
        )
    if against:
        other = BundleStages(open_bundle(against), threads)
        if voice_model(other.manifest) != voice_model(stages.manifest):
            raise UsageError(
                f"{stages.bundle_path} and {against} are of different models: tokens of one mean "
                "nothing to the other",
                "compare bundles that were made from one checkpoint",
            )
        return Side(str(against), other)
    if checkpoint is None and not is_embedded_demo(stages.manifest):
        return None
    from cosyvoice_cpu.demo.embedded import VOICE

    try:
        folder = checkpoint or VOICE
        networks = load_reference(folder, threads, speech_lm=speech_lm_of(stages.manifest, folder))
    except MissingExtraError:
        if checkpoint:
            raise
        return None  # nobody asked for the embedded checkpoint
    return Side(str(checkpoint or "the embedded checkpoint"), networks)


def is_embedded_demo(manifest: Manifest) -> bool:
    """Whether a bundle was made from the checkpoint that comes with this package."""
    from cosyvoice_cpu.demo.embedded import VOICE

    files = manifest.source.files
    paths = [VOICE / name for name in files]
    if not files or not all(path.is_file() for path in paths):
        return False
    return sha256_of_files(paths) == [entry.sha256 for entry in files.values()]


def setting_of(stages: BundleStages, speakers: Path | None, notes: list[str]) -> Setting:
    """The bundle's text tokenizer, first speaker and rules, or stand-ins with a note."""
    manifest = stages.manifest
    tokenizer = stages.tokenizer()
    if tokenizer is None:
        notes.append("spoken text: the bundle has no text tokenizer, fixed ids stand in")
    encode: Callable[[str], list[int]] = tokenizer.encode if tokenizer else _ids_without_tokenizer
    folders = [folder for folder in (speakers, stages.bundle.speakers_folder) if folder]
    names = list_speakers(folders)
    rules = synthesis_rules(manifest, stages.max_frames)
    if names:
        voice = find_speaker(folders, next(iter(names)), voice_model(manifest))
        prompt, _ = build_prompt(
            "", voice, system_prefix=rules.system_prefix, end_of_prompt=rules.end_of_prompt
        )
    else:
        notes.append("a real voice: there is no speaker, a random prompt stands in")
        prompt = _random_prompt(manifest)
    system = encode(prompt.text) if prompt.text and tokenizer else []
    return Setting(encode, prompt, [*system, *prompt.transcript_ids], rules)


def _random_prompt(manifest: Manifest) -> Prompt:
    (item,) = random_utterances(manifest)
    return Prompt(
        mode="zero-shot",
        text="",
        transcript_ids=tuple(item.prompt_text_ids),
        speech_ids=tuple(item.prompt_tokens),
        tokens=tuple(item.prompt_tokens),
        mel=item.prompt_mel,
        embedding=item.embedding,
    )


def _ids_without_tokenizer(text: str) -> list[int]:
    """One fixed id per word."""
    return [zlib.crc32(word.encode()) % _SAFE_TEXT_IDS for word in normalized_words(text)]


def ears_for(stages: BundleStages, threads: int, notes: list[str]) -> Ears:
    """Who can listen here; `notes` gets a line for each who can't."""
    recogniser = judge = None
    try:
        recogniser = load_recogniser(threads)
    except MissingExtraError as error:
        notes.append(f"words: {error.what}; {error.hint}")
    try:
        judge = load_resemblyzer()
    except MissingExtraError as error:
        if {"speaker_encoder", "speech_tokenizer"} <= stages.manifest.components.keys():
            judge = BundleEncoder(stages.front_end())
            notes.append(f"voices by an independent judge: {error.what}; {error.hint}")
        else:
            notes.append(f"voices: {error.what}; {error.hint}")
    return Ears(recogniser, judge)
