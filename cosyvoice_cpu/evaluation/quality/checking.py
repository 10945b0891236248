"""`verify --quality`: from paths to a judged table.

What a bundle is compared with, if nothing is named: a checkpoint that the caller has at hand, where
the bundle was made from it; else nothing, and only what it says by itself is judged.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET, Manifest
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import MissingExtraError, UsageError
from cosyvoice_cpu.evaluation.engine_choice import CHOOSABLE, ROUNDING, chosen_engines
from cosyvoice_cpu.evaluation.parity.verify import speech_lm_of
from cosyvoice_cpu.evaluation.quality.comparison import compare
from cosyvoice_cpu.evaluation.quality.dnsmos import load_dnsmos
from cosyvoice_cpu.evaluation.quality.estimators import (
    Estimator,
    Intelligibility,
    OpinionScore,
    SpeakerSimilarity,
)
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, Measure
from cosyvoice_cpu.evaluation.quality.mos import load_mos_predictor
from cosyvoice_cpu.evaluation.quality.recogniser import load_recogniser
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.evaluation.quality.speakers import BundleSpeakerEncoder, load_resemblyzer
from cosyvoice_cpu.evaluation.quality.systems import Condition, System
from cosyvoice_cpu.evaluation.quality.table import QualityTable
from cosyvoice_cpu.evaluation.quality.thresholds import (
    ALONE,
    ESTIMATED,
    Decision,
    decide,
    passes,
    thresholds_against,
)
from cosyvoice_cpu.frontend.bundle_models import front_end_models, text_tokenizer
from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
from cosyvoice_cpu.frontend.speaker_folders import find_speaker, list_speakers
from cosyvoice_cpu.progress import Progress, no_progress
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.stages import load_reference
from cosyvoice_cpu.synthesis.prompts import Prompt, build_prompt
from cosyvoice_cpu.utterances import random_utterances

DEFAULT_ITEMS = 20
_SAFE_TEXT_IDS = 200  # single bytes of every byte-level vocabulary: present in all


@dataclass(frozen=True)
class QualityReport:
    """The table, and whether each threshold was reached."""

    table: QualityTable
    decisions: Sequence[Decision]

    @property
    def passed(self) -> bool:
        """Whether no threshold was missed."""
        return passes(self.decisions)

    @property
    def missed(self) -> list[Decision]:
        """The thresholds that were missed."""
        return [decision for decision in self.decisions if decision.passed is False]


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
    streaming: bool = False,
    engine: str | None = None,
    preset: str = DEFAULT_PRESET,
    pictures: Path | None = None,
    progress: Progress = no_progress,
) -> QualityReport:
    """Measure the bundle on the first `items` sentences of the list and judge it by thresholds.

    The reference is the torch networks of `checkpoint` or the bundle `against`; without either, the
    bundle is judged alone.
    Its first speaker (of the folder `speakers`, else of its own) reads; without one, and without a
    text tokenizer, fixed random ids stand in, which show every difference from a reference though
    nobody could understand them.
    Each sentence is spoken `draws` times, with seeds of its own. `streaming` lets the bundle's flow
    speak as in a stream, and compares it with itself if there is no other reference; it is judged
    by what listeners notice, since its mel differs on purpose. So it is with a solver `preset` that
    is not the default. `engine` computes the bundle's flow and vocoder, not those of the reference.
    Raises: UsageError for two references, one of another model or an unknown preset, BundleError,
    CheckpointError, SpeakerError, SynthesisError for values that are not finite, OutputError.
    """
    opened = open_bundle(bundle)
    engines = chosen_engines(opened, engine, threads) if engine else None
    stages = BundleStages(opened, threads, engines=engines)
    notes: list[str] = []
    reference = _reference(stages, checkpoint, against, threads) if checkpoint or against else None
    condition = condition_of(stages, speakers, notes)
    estimators = available_estimators(stages, threads, notes)
    stages.synthesis.preset(preset)
    preset_named = None if preset == DEFAULT_PRESET else f"preset {preset}"
    differs = streaming or preset_named is not None
    parts = (str(bundle), engine, preset_named, "streaming" if streaming else None)
    candidate = System(", ".join(filter(None, parts)), stages, streaming, preset)
    if differs and reference is None:
        reference = System(str(bundle), stages)
    thresholds = ALONE
    if differs:
        thresholds = ESTIMATED
    elif reference:
        both = (reference.stages, stages)
        thresholds = thresholds_against(
            [each.manifest for each in both if isinstance(each, BundleStages)],
            CHOOSABLE if engine in ROUNDING else (),
        )
    if not has_independent_encoder(estimators):
        # The thresholds are on Resemblyzer's scale; another encoder's cosines mean other things.
        thresholds = tuple(
            threshold
            for threshold in thresholds
            if threshold.measure not in SpeakerSimilarity.measures
        )
    table = compare(
        reference,
        candidate,
        first_sentences(items),
        measures,
        condition=condition,
        estimators=estimators,
        seed=seed,
        draws=draws,
        pictures=pictures,
        notes=notes,
        progress=progress,
    )
    return QualityReport(table, decide(table.rows(), thresholds))


def _reference(
    stages: BundleStages, checkpoint: Path | None, against: Path | None, threads: int
) -> System:
    """The system to compare with. Raises: UsageError if it is of another model."""
    if checkpoint and against:
        raise UsageError(
            "a bundle is compared with one thing at a time", "give --checkpoint or --against"
        )
    if checkpoint:
        lm = speech_lm_of(stages.manifest, checkpoint)
        return System(str(checkpoint), load_reference(checkpoint, threads, speech_lm=lm))
    assert against is not None
    other = BundleStages(open_bundle(against), threads)
    if prompt_spec(other.manifest) != prompt_spec(stages.manifest):
        raise UsageError(
            f"{stages.bundle_path} and {against} are of different models: tokens of one mean "
            "nothing to the other",
            "compare bundles that were made from one checkpoint",
        )
    return System(str(against), other)


def condition_of(stages: BundleStages, speakers: Path | None, notes: list[str]) -> Condition:
    """The bundle's text tokenizer, first speaker and rules, or stand-ins with a note."""
    manifest = stages.manifest
    tokenizer = text_tokenizer(stages.bundle)
    if tokenizer is None:
        notes.append("spoken text: the bundle has no text tokenizer, fixed ids stand in")
    encode: Callable[[str], list[int]] = tokenizer.encode if tokenizer else _ids_without_tokenizer
    folders = [folder for folder in (speakers, stages.bundle.speakers_folder) if folder]
    names = list_speakers(folders)
    synthesis = stages.synthesis
    if names:
        voice = find_speaker(folders, next(iter(names)), prompt_spec(manifest))
        prompt, _ = build_prompt(
            "",
            voice,
            system_prefix=synthesis.system_prefix,
            end_of_prompt=synthesis.end_of_prompt,
        )
    else:
        notes.append("a real voice: there is no speaker, a random prompt stands in")
        prompt = _random_prompt(manifest)
    system = encode(prompt.text) if prompt.text and tokenizer else []
    text_ids = [*system, *prompt.transcript_ids]
    return Condition(encode, prompt, text_ids, stages.audio, synthesis, stages.max_frames)


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
    return [zlib.crc32(word.encode()) % _SAFE_TEXT_IDS for word in text.split()]


def available_estimators(stages: BundleStages, threads: int, notes: list[str]) -> list[Estimator]:
    """Those whose packages are installed; `notes` gets a line for each that is left out."""
    estimators: list[Estimator] = []
    try:
        estimators.append(Intelligibility(load_recogniser(threads)))
    except MissingExtraError as error:
        notes.append(f"words: {error.what}; {error.hint}")
    try:
        estimators.append(SpeakerSimilarity(load_resemblyzer()))
    except MissingExtraError as error:
        if {"speaker_encoder", "speech_tokenizer"} <= stages.manifest.components.keys():
            estimators.append(
                SpeakerSimilarity(BundleSpeakerEncoder(front_end_models(stages.bundle)))
            )
            notes.append(f"voices by an independent encoder: {error.what}; {error.hint}")
        else:
            notes.append(f"voices: {error.what}; {error.hint}")
    try:
        estimators.append(OpinionScore(load_mos_predictor()))
    except MissingExtraError as error:
        notes.append(f"MOS: {error.what}; {error.hint}")
    try:
        estimators.append(OpinionScore(load_dnsmos(), "dnsmos"))
    except MissingExtraError as error:
        notes.append(f"MOS, second opinion: {error.what}; {error.hint}")
    return estimators


def has_independent_encoder(estimators: Sequence[Estimator]) -> bool:
    """Whether similarities are measured by an encoder that no network was trained with."""
    return any(
        isinstance(estimator, SpeakerSimilarity) and estimator.encoder.independent
        for estimator in estimators
    )
