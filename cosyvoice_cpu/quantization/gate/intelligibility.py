"""The gate's last part: is what the quantized bundle says intelligible, in the same voice?

Both bundles read sentences by themselves; a recogniser and a speaker encoder measure words and
voice; mel, loudness and predicted MOS are compared on the same tokens. It takes the packages of the
extra `eval`, a bundle that has a tokenizer and a speaker, and networks that speak: otherwise it is
skipped, and the report says why. What is refused here may be rolled back to float32.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult
from cosyvoice_cpu.evaluation.quality.checking import (
    available_estimators,
    condition_of,
    has_independent_encoder,
)
from cosyvoice_cpu.evaluation.quality.comparison import compare
from cosyvoice_cpu.evaluation.quality.estimators import Estimator, Intelligibility
from cosyvoice_cpu.evaluation.quality.measures import named
from cosyvoice_cpu.evaluation.quality.sentences import Sentence, first_sentences
from cosyvoice_cpu.evaluation.quality.systems import Condition, System
from cosyvoice_cpu.evaluation.quality.table import Interval, ItemResult, bootstrap_interval
from cosyvoice_cpu.evaluation.quality.thresholds import SPEAKS
from cosyvoice_cpu.frontend.bundle_models import text_tokenizer
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.quantization.gate.accuracy import quality_result
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache
from cosyvoice_cpu.quantization.recipes.recipe import SpeechLimits
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

_SAMPLE = 3  # sentences that show whether the float32 voice can be understood
_MEASURES = named(
    [
        *("word_error_rate", "word_errors_added", "prompt_similarity"),
        *("mel_correlation", "loudness_change_db", "mos_lost"),
    ]
)
# On the same tokens mel, loudness and MOS are the work of flow and vocoder alone. Words and voice
# are everybody's; the speech LM's draws change most of them.
_OF_THE_SAME_TOKENS = frozenset({"mel_correlation", "loudness_change_db", "mos_lost"})
_BEHIND_TOKENS: tuple[ComponentName, ...] = ("flow_estimator", "flow_encoder", "vocoder")
_ALL: tuple[ComponentName, ...] = ("speech_lm", *_BEHIND_TOKENS)
Cells = dict[str, float]


@dataclass(frozen=True)
class SpeechCheck:
    """What was measured; no results if the check was skipped."""

    results: list[QualityResult]
    remarks: list[str]  # means with their intervals, or why it was skipped


class SkippedError(Exception):
    """Speech can't be measured here, as the message says."""


def check_speech(
    reference: BundleStages,
    quantized: Callable[[], BundleStages],
    limits: SpeechLimits,
    cache: MeasurementCache,
    key: str,
    progress: Share,
    estimators: Sequence[Estimator] | None = None,
) -> SpeechCheck:
    """Compare what float32 and quantized say; `quantized` is opened if it is, `key` identifies it.

    `estimators` replace the installed ones. Without them, a speaker or a voice that can be
    understood there are no results, and the remark says what was missing.
    """
    try:
        condition, estimators = speech_condition(reference, estimators)
        sentences = first_sentences(limits.sentences)
        require_speech(reference, condition, estimators, sentences[:_SAMPLE], cache)
    except SkippedError as reason:
        return SpeechCheck([], [f"words and voices were left out of the gate: {reason}"])
    systems = reference, quantized()
    cells: list[Cells] = []
    for count, sentence in enumerate(sentences):
        progress(count / len(sentences))
        compute = partial(_compared, systems, condition, estimators, sentence)
        cells.append(cache.values(f"speech-{key}-{sentence.name}", compute))
    return judge_cells(cells, limits)


def speech_condition(
    stages: BundleStages, estimators: Sequence[Estimator] | None
) -> tuple[Condition, Sequence[Estimator]]:
    """Who speaks and who listens; `estimators` replace the installed ones. Raises: SkippedError."""
    notes: list[str] = []
    if estimators is None:
        estimators = available_estimators(stages, stages.threads, notes)
    recognised = any(isinstance(estimator, Intelligibility) for estimator in estimators)
    if not (recognised and has_independent_encoder(estimators)):
        raise SkippedError(notes[0] if notes else "no recogniser and independent encoder")
    if text_tokenizer(stages.bundle) is None:
        raise SkippedError(f"{stages.bundle_path} has no text tokenizer")
    if not list_speakers([stages.bundle.speakers_folder]):
        raise SkippedError(f"{stages.bundle_path} has no speaker, see cache-speaker")
    return condition_of(stages, None, notes), estimators


def require_speech(
    stages: BundleStages,
    condition: Condition,
    estimators: Sequence[Estimator],
    sentences: Sequence[Sentence],
    cache: MeasurementCache,
) -> None:
    """Raises: SkippedError if the float32 voice can't be understood."""

    def compute() -> Cells:
        system = System("float32", stages)
        table = compare(
            None, system, sentences, _MEASURES, condition=condition, estimators=estimators
        )
        rates = [r.interval.value for r in table.rows() if r.measure.name == "word_error_rate"]
        return {"word_error_rate": rates[0]}

    rate = cache.values("speech-float32", compute)["word_error_rate"]
    if rate > SPEAKS:
        raise SkippedError(f"in float32, {rate:.0%} of the words are wrong")


def _compared(
    systems: tuple[BundleStages, BundleStages],
    condition: Condition,
    estimators: Sequence[Estimator],
    sentence: Sentence,
) -> Cells:
    """The measures of one sentence, and its words."""
    float32, quantized = (
        System(name, stages) for name, stages in zip(("float32", "quantized"), systems, strict=True)
    )
    table = compare(
        float32, quantized, [sentence], _MEASURES, condition=condition, estimators=estimators
    )
    result: ItemResult = table.items[0]
    found = {f"{name}/{of}": cell.value for (name, of), cell in result.cells.items()}
    if "reference" in result.word_errors:
        found["words"] = float(result.word_errors["reference"].words)
    return found


def judge_cells(cells: Sequence[Cells], limits: SpeechLimits) -> SpeechCheck:
    """Means against limits; words and voices only where the whole interval is beyond them.

    What is drawn differs between the systems, so a few words more are noise in one run.
    """
    added = _interval(cells, "word_errors_added/both", weight="words")
    lost = _interval([_with_lost_similarity(cell) for cell in cells], "prompt_similarity_lost/both")
    mel = _interval(cells, "mel_correlation/both")
    loudness = _interval(cells, "loudness_change_db/both")
    results = [
        quality_result(None, "mel_correlation", mel.value, "at_least", limits.mel_correlation),
        quality_result(
            None, "loudness_change_db", loudness.value, "at_most", limits.loudness_change_db
        ),
        quality_result(
            None, "word_errors_added_low", added.low, "at_most", limits.word_errors_added
        ),
        quality_result(
            None, "prompt_similarity_lost_low", lost.low, "at_most", limits.prompt_similarity_lost
        ),
    ]
    count = len(cells)
    remarks = [
        f"words wrong beyond float32's, of {count} sentences: {_text(added, 100)} %",
        f"similarity to the prompt lost, of {count} sentences: {_text(lost, 1)}",
    ]
    if any("mos_lost/both" in cell for cell in cells):
        mos = _interval(cells, "mos_lost/both")
        results.append(quality_result(None, "mos_lost", mos.value, "at_most", limits.mos_lost))
        remarks.append(f"MOS lost, as predicted, of {count} sentences: {_text(mos, 1)}")
    return SpeechCheck(results, remarks)


def rollback(
    results: Sequence[QualityResult], searched: Collection[ComponentName]
) -> tuple[ComponentName, str] | None:
    """The component of `searched` to restore to float32 first, and why; None if none can help.

    `searched` holds the quantized components whose recipe leaves a choice.
    """
    for result in results:
        if result.passed:
            continue
        order = _BEHIND_TOKENS if result.measure in _OF_THE_SAME_TOKENS else _ALL
        for name in order:
            if name in searched:
                value, limit = f"{result.value:g}", f"{result.limit:g}"
                return name, f"speech: {result.measure} is {value}, the limit is {limit}"
    return None


def _with_lost_similarity(cells: Cells) -> Cells:
    before, after = (cells.get(f"prompt_similarity/{of}") for of in ("reference", "candidate"))
    if before is None or after is None:
        return cells
    return cells | {"prompt_similarity_lost/both": before - after}


def _interval(cells: Sequence[Cells], name: str, weight: str | None = None) -> Interval:
    held = [cell for cell in cells if name in cell]
    if not held:
        return Interval(0.0, 0.0, 0.0)
    weights = [cell[weight] for cell in held] if weight else None
    return bootstrap_interval([cell[name] for cell in held], weights)


def _text(interval: Interval, factor: float) -> str:
    digits = 1 if factor > 1 else 3
    low, value, high = (
        f"{number * factor:.{digits}f}" for number in (interval.low, interval.value, interval.high)
    )
    return f"{value} ({low} to {high})"
