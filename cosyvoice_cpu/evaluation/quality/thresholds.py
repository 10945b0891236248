"""What quality has to reach, as data; printed beside every value it judges.

A network in float has no excuse: whatever is wrong with it shows far below what is audible, with
trained weights as with random ones. What was quantized may differ by more, within what a listener
would let pass. So most thresholds have two limits, chosen by how the networks behind them are
stored.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest
from cosyvoice_cpu.evaluation.quality.measures import Of
from cosyvoice_cpu.evaluation.quality.table import Key, MeasureRow

Bound = Literal["at_least", "at_most"]


@dataclass(frozen=True)
class Threshold:
    """`measure` of `of` has to be `bound` the `limit`; one without a value is not judged."""

    measure: str
    of: Of
    bound: Bound
    limit: float
    trained: bool = False  # only where the reference speaks; a random voice has no words to lose


@dataclass(frozen=True)
class Decision:
    """Whether a threshold was reached; `passed` is None where it has no meaning, see `reason`."""

    threshold: Threshold
    value: float
    passed: bool | None
    reason: str = ""


_LM: tuple[ComponentName, ...] = ("speech_lm",)
_FLOW: tuple[ComponentName, ...] = ("flow_encoder", "flow_estimator")
_VOCODER: tuple[ComponentName, ...] = ("vocoder",)
_AUDIO = (*_FLOW, *_VOCODER)

TEACHER_FORCED: tuple[tuple[str, tuple[ComponentName, ...], Bound, float, float], ...] = (
    # measure, what it depends on, bound, limit in float, limit where one of them is quantized
    ("logits_sqnr_db", _LM, "at_least", 45.0, 20.0),
    ("token_agreement", _LM, "at_least", 0.98, 0.85),
    ("mel_correlation", _FLOW, "at_least", 0.9999, 0.99),
    ("mel_error_db", _FLOW, "at_most", 0.05, 1.5),
    ("voicing_agreement", _VOCODER, "at_least", 0.998, 0.97),
    ("vocoder_snr_db", _VOCODER, "at_least", 35.0, 15.0),
    ("audio_correlation", _AUDIO, "at_least", 0.999, 0.97),
    ("loudness_change_db", _AUDIO, "at_most", 0.05, 0.5),
)
ESTIMATED: tuple[Threshold, ...] = (
    Threshold("mos_lost", "both", "at_most", 0.1, trained=True),
    Threshold("word_errors_added", "both", "at_most", 0.03, trained=True),
    Threshold("voice_similarity", "both", "at_least", 0.85, trained=True),
)
ALONE: tuple[Threshold, ...] = (
    Threshold("trouble", "candidate", "at_most", 0.1),
    Threshold("word_error_rate", "candidate", "at_most", 0.2),
    Threshold("prompt_similarity", "candidate", "at_least", 0.7),
)
SPEAKS = 0.5  # word error rate of a reference above which it is taken for an untrained voice
_FLOAT = frozenset({"float32", "float16-storage"})


def thresholds_against(
    manifests: Sequence[Manifest], rounded: Collection[ComponentName] = ()
) -> tuple[Threshold, ...]:
    """The thresholds of a comparison in which the bundles of `manifests` take part.

    `rounded`: components whose engine rounds, whatever the bundle stores.
    """
    quantized = set(rounded) | {
        name
        for manifest in manifests
        for name, component in manifest.components.items()
        if component.precision not in _FLOAT
    }
    taught = (
        Threshold(measure, "both", bound, loose if quantized & set(components) else strict)
        for measure, components, bound, strict, loose in TEACHER_FORCED
    )
    return (*taught, *ESTIMATED)


def decide(rows: Sequence[MeasureRow], thresholds: Iterable[Threshold]) -> list[Decision]:
    """The thresholds whose measure is among `rows`, judged by the mean."""
    values: dict[Key, float] = {(row.measure.name, row.of): row.interval.value for row in rows}
    spoken = values.get(("word_error_rate", "reference"))
    decisions = []
    for threshold in thresholds:
        value = values.get((threshold.measure, threshold.of))
        if value is None:
            continue
        if threshold.trained and (reason := _does_not_speak(spoken)):
            decisions.append(Decision(threshold, value, None, reason))
        elif threshold.bound == "at_least":
            decisions.append(Decision(threshold, value, value >= threshold.limit))
        else:
            decisions.append(Decision(threshold, value, value <= threshold.limit))
    return decisions


def _does_not_speak(spoken: float | None) -> str:
    """Why the reference's words or voice are no measure, "" if they are one."""
    if spoken is None:
        return "no recogniser tells whether the reference speaks"
    return f"of the reference, {spoken:.0%} of the words are wrong" if spoken > SPEAKS else ""


def passes(decisions: Iterable[Decision]) -> bool:
    """Whether no threshold was missed."""
    return all(decision.passed is not False for decision in decisions)
