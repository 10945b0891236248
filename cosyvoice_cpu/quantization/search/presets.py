"""Searches the cheapest solver preset that sounds as good as the default, by the listeners.

    candidates ─> screening: mel distances and MOS of the same speech tokens ─> finalists, the
    cheapest first ─> words, similarity, MOS over all sentences and seeds ─> the first that passes

Everything is measured on the same speech tokens, those that the float32 speech LM draws, so that
solvers differ in nothing else. MOS, words and voice are compared with the float32 bundle's default.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import QualityResult, SolverPreset, Synthesis
from cosyvoice_cpu.decoding.preset_candidates import CANDIDATES, exact_preset
from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.decoding.solver import evaluated_rows, evaluation_times, evaluations
from cosyvoice_cpu.errors import GateRefusedError, UsageError
from cosyvoice_cpu.evaluation.distances import mel_error_db
from cosyvoice_cpu.evaluation.quality.estimators import Estimator
from cosyvoice_cpu.evaluation.quality.sentences import Sentence, first_sentences
from cosyvoice_cpu.evaluation.quality.systems import Condition, Rendering, System, draw_tokens
from cosyvoice_cpu.evaluation.quality.table import Interval, ItemResult, bootstrap_interval
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.quantization.gate.accuracy import quality_result
from cosyvoice_cpu.quantization.gate.intelligibility import (
    Cells,
    SkippedError,
    require_speech,
    speech_condition,
)
from cosyvoice_cpu.quantization.measurement_cache import MeasurementCache, digest_of
from cosyvoice_cpu.quantization.recipes.recipe import PresetSearch
from cosyvoice_cpu.quantization.report import PresetReport
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

_SAMPLE = 3  # sentences that show whether the float32 voice can be understood


@dataclass(frozen=True)
class FoundPreset:
    """What goes into the bundle if the gate lets it or is overridden, and all that was measured."""

    name: str
    preset: SolverPreset
    results: list[QualityResult]
    curve: list[PresetReport]  # by cost


class PresetsNotJudgedError(GateRefusedError):
    """No preset can be judged here, and what was not judged is not written."""


def search_presets(
    reference: BundleStages,
    candidate: BundleStages,
    search: PresetSearch,
    cache: MeasurementCache,
    key: str,
    progress: Share,
    estimators: Sequence[Estimator] | None = None,
) -> FoundPreset:
    """The cheapest of the search's candidates that passes; if none does, the best of those judged.

    `candidate` is the bundle that it is for, by its `key`: quantized, or `reference` itself, the
    float32 one. `estimators` replace the installed ones.
    Raises: PresetsNotJudgedError where listeners, speaker or voice are missing, UsageError if the
    bundle's flow was not made for any of the candidates.
    """
    presets = _possible(reference.synthesis, search)
    try:
        condition, estimators = speech_condition(reference, estimators)
        sample = first_sentences(_SAMPLE)
        require_speech(reference, condition, estimators, sample, cache)
    except SkippedError as reason:
        raise PresetsNotJudgedError(
            f"solver presets can't be judged here: {reason}",
            "they need the packages of the extra eval (docs/quality.md) and a voice that speaks",
        ) from reason
    judge = _Judge(reference, candidate, condition, estimators, cache, key)
    judge.prepare()
    screened: dict[str, PresetReport] = {}
    for count, (name, preset) in enumerate(presets.items()):
        progress(0.5 * count / len(presets))
        screened[name] = judge.screen(name, preset, first_sentences(search.screened))
    order = sorted(
        screened,
        key=lambda name: (
            screened[name].rows,
            presets[name].prompt == "solved",
            screened[name].mos_lost[0],
        ),
    )
    # A few sentences can't tell a loss of the limit's size: what is surely beyond it is left out.
    plausible = [name for name in order if screened[name].mos_lost[1] <= search.mos_lost]
    curve = dict(screened)
    for count, name in enumerate(plausible[: search.finalists]):
        progress(0.5 + 0.5 * count / search.finalists)
        curve[name] = judge.judge(screened[name], presets[name], search)
        if not curve[name].refusal:
            return _found(search, curve, presets, name)
    best = min(plausible[: search.finalists] or order, key=lambda name: screened[name].mos_lost[0])
    if not curve[best].results:  # refused by the screening already: judged all the same
        curve[best] = judge.judge(screened[best], presets[best], search)
    return _found(search, curve, presets, best)


def _found(
    search: PresetSearch,
    curve: dict[str, PresetReport],
    presets: dict[str, SolverPreset],
    name: str,
) -> FoundPreset:
    by_cost = sorted(curve.values(), key=lambda report: report.rows)
    return FoundPreset(search.name, presets[name], curve[name].results, by_cost)


def _possible(synthesis: Synthesis, search: PresetSearch) -> dict[str, SolverPreset]:
    """Candidates whose times the bundle's table has. Raises: UsageError if there are none."""
    known = set(synthesis.solver_times)
    presets = {name: CANDIDATES[name].preset(synthesis.solver) for name in search.candidates}
    needed = evaluation_times([exact_preset(synthesis.solver)])
    possible = {
        name: preset
        for name, preset in presets.items()
        if known.issuperset(evaluation_times([preset])) and known.issuperset(needed)
    }
    if not possible:
        raise UsageError(
            "this bundle's flow was made for the times of its own presets only",
            "export the checkpoint without --presets, and search in that bundle",
        )
    return possible


class _Judge:
    """Renders speech tokens with solvers and lets the listeners judge, each thing once."""

    def __init__(
        self,
        reference: BundleStages,
        candidate: BundleStages,
        condition: Condition,
        estimators: Sequence[Estimator],
        cache: MeasurementCache,
        key: str,
    ) -> None:
        self._reference, self._candidate = reference, candidate
        self._condition, self._estimators = condition, estimators
        self._cache, self._key = cache, key
        self._default = reference.synthesis.solver
        self._exact = exact_preset(self._default)

    def prepare(self) -> None:
        """Let the listeners hear the prompt."""
        for estimator in self._estimators:
            estimator.prepare(System("float32", self._reference), self._condition)

    def screen(
        self, name: str, preset: SolverPreset, sentences: Sequence[Sentence]
    ) -> PresetReport:
        """Mel distances and MOS lost, one seed of each sentence."""
        distances, lost = [], []
        for sentence, item, _ in self._spoken(sentences, 1):
            mel = self._mel(self._candidate, preset, sentence, item, 0)
            want, exact = (
                self._mel(self._reference, solver, sentence, item, 0)
                for solver in (self._default, self._exact)
            )
            distances.append((mel_error_db(want, mel), mel_error_db(exact, mel)))
            before, after = self._cells(preset, sentence, item, 0)
            if "mos" in before and "mos" in after:
                lost.append(before["mos"] - after["mos"])
        from_default, from_exact = np.mean(distances, axis=0)
        return PresetReport(
            candidate=name,
            evaluations=len(evaluations(preset)),
            rows=evaluated_rows(preset),
            mel_db_from_default=round(float(from_default), 3),
            mel_db_from_exact=round(float(from_exact), 3),
            mos_lost=_listed(_interval([(value, 1.0) for value in lost])),
            sentences=len(sentences),
            refusal="not among the finalists",
        )

    def judge(
        self, screened: PresetReport, preset: SolverPreset, search: PresetSearch
    ) -> PresetReport:
        """All sentences and seeds, against the limits."""
        pairs = [
            self._cells(preset, sentence, item, seed)
            for sentence, item, seed in self._spoken(
                first_sentences(search.sentences), search.draws
            )
        ]
        added = _interval(
            [
                ((after["errors"] - before["errors"]) / before["words"], before["words"])
                for before, after in pairs
                if before.get("words")
            ]
        )
        mos, similarity = (
            _interval(
                [
                    (before[name] - after[name], 1.0)
                    for before, after in pairs
                    if name in before and name in after
                ]
            )
            for name in ("mos", "similarity")
        )
        judged = sum("errors" in before for before, _ in pairs)
        results = [
            quality_result(None, "sentences_judged", judged, "at_least", len(pairs), search.name),
            *(
                quality_result(None, name, interval.value, "at_most", limit, search.name)
                for name, interval, limit in (
                    ("word_errors_added", added, search.word_errors_added),
                    ("prompt_similarity_lost", similarity, search.prompt_similarity_lost),
                    ("mos_lost", mos, search.mos_lost),
                )
            ),
        ]
        refusals = [
            f"{result.measure} is {result.value:g}, the limit is {result.limit:g}"
            for result in results
            if not result.passed
        ]
        return replace(
            screened,
            mos_lost=_listed(mos),
            sentences=len(pairs),
            word_errors_added=_listed(added),
            prompt_similarity_lost=_listed(similarity),
            results=results,
            refusal="; ".join(refusals) or None,
        )

    def _spoken(
        self, sentences: Sequence[Sentence], draws: int
    ) -> Iterator[tuple[Sentence, int, int]]:
        """Sentences with their number and seed, but for those that the speech LM leaves out."""
        for seed in range(draws):
            for item, sentence in enumerate(sentences):
                if self._tokens(sentence, item, seed):
                    yield sentence, item, seed

    def _cells(
        self, preset: SolverPreset, sentence: Sentence, item: int, seed: int
    ) -> tuple[Cells, Cells]:
        """What listeners say of the float32 default and of the candidate's `preset`."""
        before = partial(self._heard, self._reference, self._default, sentence, item, seed)
        after = partial(self._heard, self._candidate, preset, sentence, item, seed)
        name = f"{sentence.name}-{seed}"
        return (
            self._cache.values(f"heard-{_digest(self._default)}-{name}", before),
            self._cache.values(f"heard-{self._key}-{_digest(preset)}-{name}", after),
        )

    def _heard(
        self, stages: BundleStages, preset: SolverPreset, sentence: Sentence, item: int, seed: int
    ) -> Cells:
        """Word errors, words, similarity to the prompt and MOS of one sentence, as far as there is
        somebody to judge them.
        """
        tokens = self._tokens(sentence, item, seed)
        mel = self._mel(stages, preset, sentence, item, seed)
        said = Rendering(tokens, False, mel, stages.mel_to_waveform(mel))
        result = ItemResult(sentence)
        for estimator in self._estimators:
            estimator.estimate({"candidate": said}, result)
        cells = {
            name: result.cells[measure, "candidate"].value
            for name, measure in (("similarity", "prompt_similarity"), ("mos", "mos"))
            if (measure, "candidate") in result.cells
        }
        if errors := result.word_errors.get("candidate"):
            cells |= {"errors": float(errors.errors), "words": float(errors.words)}
        return cells

    def _mel(
        self, stages: BundleStages, preset: SolverPreset, sentence: Sentence, item: int, seed: int
    ) -> Floats:
        """Log-mel [mel bins, frames] of the sentence's tokens."""
        synthesis, prompt = stages.synthesis, self._condition.prompt
        key = self._key if stages is self._candidate else "float32"

        def compute() -> dict[str, Floats]:
            tokens = self._tokens(sentence, item, seed)
            kept = shorten_silence(tokens, synthesis.silent_tokens, synthesis.silent_run_limit)
            mel = stages.tokens_to_mel(
                kept,
                prompt_tokens=prompt.tokens,
                prompt_mel=prompt.mel,
                embedding=prompt.embedding,
                preset=preset,
            )
            return {"mel": mel}

        name = f"mel-{key}-{_digest(preset)}-{sentence.name}-{seed}"
        return np.asarray(self._cache.arrays(name, compute)["mel"], np.float32)

    def _tokens(self, sentence: Sentence, item: int, seed: int) -> list[int]:
        """What the float32 speech LM draws, for all solvers alike."""

        def compute() -> dict[str, NDArray[np.int64]]:
            system = System("float32", self._reference)
            text_ids = self._condition.text_ids(sentence.text)
            tokens, _ = draw_tokens(system, self._condition, text_ids, seed=seed, item=item)
            return {"tokens": np.array(tokens, np.int64)}

        found = self._cache.arrays(f"tokens-{sentence.name}-{seed}", compute)
        return [int(token) for token in found["tokens"]]


def _interval(values: Sequence[tuple[float, float]]) -> Interval:
    """Of (value, weight); without values nothing was lost, and nothing was judged."""
    if not values:
        return Interval(0.0, 0.0, 0.0)
    numbers, weights = zip(*values, strict=True)
    return bootstrap_interval(numbers, weights)


def _listed(interval: Interval) -> list[float]:
    return [round(value, 4) for value in (interval.value, interval.low, interval.high)]


def _digest(preset: SolverPreset) -> str:
    return digest_of(msgspec.to_builtins(preset))[:16]
