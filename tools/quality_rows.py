"""The rows of docs/quality.md: every way in which a voice can speak, beside its float32 default.

    python -m tools.quality_rows FLOAT32 --kept FILE.jsonl
        --way NAME=BUNDLE[,engine=ENGINE][,preset=PRESET][,stream] [--way ...]
        [--items N] [--draws N] [--threads N]

FLOAT32 is the bundle that all are compared with. Each way reads the sentences of `verify --quality`
as its own speech LM draws them (words, similarity to the prompt), and makes sound of what the
float32 bundle drew (MOS, mel distance), so that the same words are compared. What was measured is
kept in FILE, and not measured again: a run can be stopped, and another way added.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import DEFAULT_PRESET
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.distances import mel_error_db
from cosyvoice_cpu.evaluation.engine_choice import chosen_engines
from cosyvoice_cpu.evaluation.quality.checking import available_estimators, condition_of
from cosyvoice_cpu.evaluation.quality.estimators import Estimator, needed
from cosyvoice_cpu.evaluation.quality.sentences import Sentence, first_sentences
from cosyvoice_cpu.evaluation.quality.systems import Condition, System, draw_tokens, mel_of, render
from cosyvoice_cpu.evaluation.quality.table import Interval, ItemResult, bootstrap_interval
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.system.threads import resolve_threads
from tools.failures import reports_failures

REFERENCE = "float32"
_JUDGED = ("word_error_rate", "prompt_similarity", "mos")
Values = Mapping[str, float]
"""Of one utterance: errors, words, similarity, trouble, mos, mel_db, as far as they were judged."""


@dataclass(frozen=True)
class Way:
    """A bundle, and how it speaks."""

    name: str
    bundle: Path
    engine: str | None = None
    preset: str = DEFAULT_PRESET
    stream: bool = False

    @classmethod
    def parsed(cls, text: str) -> Way:
        """Of `NAME=BUNDLE[,engine=ENGINE][,preset=PRESET][,stream]`. Raises: UsageError."""
        name, _, rest = text.partition("=")
        path, *options = rest.split(",")
        stream = "stream" in options
        named = dict(option.partition("=")[::2] for option in options if option != "stream")
        engine, preset = named.pop("engine", None), named.pop("preset", DEFAULT_PRESET)
        if not (name and path) or named:
            raise UsageError(
                f"--way {text} can't be read",
                "write it as NAME=BUNDLE[,engine=ENGINE][,preset=PRESET][,stream]",
            )
        return cls(name, Path(path), engine, preset, stream)

    def open(self, threads: int) -> System:
        """Raises: BundleError, UsageError, EngineParityError, MissingExtraError."""
        bundle = open_bundle(self.bundle)
        engines = chosen_engines(bundle, self.engine, threads) if self.engine else None
        stages = BundleStages(bundle, threads, engines=engines)
        stages.synthesis.preset(self.preset)
        return System(self.name, stages, self.stream, self.preset)


class Kept:
    """What was measured, a line for each utterance of a way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        self._values: dict[tuple[str, str, int], Values] = {
            tuple(key): values for key, values in map(json.loads, lines)
        }

    def get(self, way: str, sentence: str, seed: int, measure: Callable[[], Values]) -> Values:
        """What is kept of the utterance, else what `measure` gives, kept from now on."""
        key = (way, sentence, seed)
        if key not in self._values:
            self._values[key] = dict(measure())
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps([key, self._values[key]]) + "\n")
        return self._values[key]


class Teacher:
    """What the float32 bundle draws and makes of it, once for all ways."""

    def __init__(self, system: System, condition: Condition) -> None:
        self.system, self.condition = system, condition
        self._said: dict[tuple[str, int], tuple[list[int], bool, Floats]] = {}

    def says(self, sentence: Sentence, item: int, seed: int) -> tuple[list[int], bool, Floats]:
        """Speech tokens, whether they are no plausible speech, and their mel."""
        key = (sentence.name, seed)
        if key not in self._said:
            text_ids = self.condition.text_ids(sentence.text)
            tokens, lost = draw_tokens(self.system, self.condition, text_ids, seed=seed, item=item)
            mel = mel_of(self.system, self.condition, tokens) if tokens else np.zeros((0, 0))
            self._said[key] = tokens, lost, mel.astype(np.float32)
        return self._said[key]

    def draws_for(self, way: System) -> bool:
        """Whether the way's speech LM is the same, and so draws the same."""
        return _speech_lm(way) == _speech_lm(self.system)


def measure_way(
    teacher: Teacher,
    way: System,
    estimators: Sequence[Estimator],
    sentence: Sentence,
    item: int,
    seed: int,
) -> Values:
    """One utterance of `way`."""
    condition = teacher.condition
    taught, lost, wanted = teacher.says(sentence, item, seed)
    drawn = taught
    if not teacher.draws_for(way):
        text_ids = condition.text_ids(sentence.text)
        drawn, lost = draw_tokens(way, condition, text_ids, seed=seed, item=item)
    free, values = ItemResult(sentence), {"trouble": float(lost)}
    said = render(way, condition, drawn, lost)
    for estimator in estimators:
        estimator.estimate({"candidate": said}, free)
    forced, same = free, said
    if drawn != taught:
        forced, same = ItemResult(sentence), render(way, condition, taught, False)
        for estimator in estimators:
            if "mos" in estimator.measures:
                estimator.estimate({"candidate": same}, forced)
    if errors := free.word_errors.get("candidate"):
        values |= {"errors": float(errors.errors), "words": float(errors.words)}
    for name, measure, result in (
        ("similarity", "prompt_similarity", free),
        ("mos", "mos", forced),
    ):
        if cell := result.cells.get((measure, "candidate")):
            values[name] = cell.value
    if taught:
        values["mel_db"] = mel_error_db(wanted, same.mel)
    return values


def row(name: str, before: Sequence[Values], after: Sequence[Values]) -> str:
    """A line of Markdown: words wrong, then what was lost against `before`, with intervals."""
    errors = sum(values.get("errors", 0.0) for values in after)
    words = sum(values.get("words", 0.0) for values in after)
    pairs = list(zip(before, after, strict=True))
    added = [
        ((a["errors"] - b["errors"]) / b["words"], b["words"]) for b, a in pairs if "words" in b
    ]
    cells = [
        name,
        f"{errors / max(words, 1):.1%}",
        _shown(added, 100, 1),
        *(
            _shown([(b[key] - a[key], 1.0) for b, a in pairs if key in b and key in a], 1, digits)
            for key, digits in (("similarity", 3), ("mos", 2))
        ),
        f"{sum(values.get('mel_db', 0.0) for values in after) / len(after):.2f}",
        f"{sum(values['trouble'] for values in after):.0f} of {len(after)}",
    ]
    return f"| {' | '.join(cells)} |"


def _speech_lm(system: System) -> list[str]:
    assert isinstance(system.stages, BundleStages)
    return [entry.sha256 for entry in system.stages.bundle.component("speech_lm").files]


def _shown(values: Sequence[tuple[float, float]], scale: float, digits: int) -> str:
    if not values:
        return "not judged"
    numbers, weights = zip(*values, strict=True)
    found: Interval = bootstrap_interval(numbers, weights)
    value, low, high = (
        f"{scale * part:.{digits}f}" for part in (found.value, found.low, found.high)
    )
    return f"{value} ({low} to {high})"


@reports_failures
def main() -> int:
    """Parse the command line, measure and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.quality_rows",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--way", action="append", default=[])
    parser.add_argument("--items", type=int, default=66)
    parser.add_argument("--draws", type=int, default=1)
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    threads = resolve_threads(arguments.threads)
    reference = Way(REFERENCE, arguments.bundle).open(threads)
    assert isinstance(reference.stages, BundleStages)
    notes: list[str] = []
    condition = condition_of(reference.stages, None, notes)
    estimators = needed(available_estimators(reference.stages, threads, notes), _JUDGED)
    for estimator in estimators:
        estimator.prepare(reference, condition)
    teacher = Teacher(reference, condition)
    kept, sentences = Kept(arguments.kept), first_sentences(arguments.items)

    def measured(way: System) -> list[Values]:
        return [
            kept.get(
                *(way.name, sentence.name, seed),
                lambda s=sentence, i=item, d=seed: measure_way(  # type: ignore[misc]
                    teacher, way, estimators, s, i, d
                ),
            )
            for seed in range(arguments.draws)
            for item, sentence in enumerate(sentences)
        ]

    before = measured(reference)
    print(
        "| | words wrong | words lost, points | similarity lost | MOS lost | mel, dB | trouble |\n"
        "|---|--:|--:|--:|--:|--:|--:|"
    )
    print(row(REFERENCE, before, before), flush=True)
    for text in arguments.way:
        way = Way.parsed(text).open(threads)
        print(row(way.name, before, measured(way)), flush=True)
    for note in notes:
        print(note, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
