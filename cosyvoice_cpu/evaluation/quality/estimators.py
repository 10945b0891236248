"""What is measured of speech itself: one class per estimator, each with the measures it fills.

A further estimator is one class here (or in a module of its own), a row per value in `measures`,
and a line in `checking.available_estimators`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.evaluation.quality.intelligibility import text_errors
from cosyvoice_cpu.evaluation.quality.measures import Of
from cosyvoice_cpu.evaluation.quality.mos import MosPredictor
from cosyvoice_cpu.evaluation.quality.recogniser import RECOGNISER_RATE, Recogniser
from cosyvoice_cpu.evaluation.quality.speakers import SpeakerEncoder, cosine
from cosyvoice_cpu.evaluation.quality.systems import Condition, Rendering, System, require_finite
from cosyvoice_cpu.evaluation.quality.table import ItemResult
from cosyvoice_cpu.frontend.resampling import resample
from cosyvoice_cpu.synthesis.loudness import loudness_lufs


class Estimator(Protocol):
    """Fills measures from what systems said."""

    @property
    def measures(self) -> frozenset[str]:
        """Names of `measures.MEASURES`."""
        ...

    def prepare(self, system: System, condition: Condition) -> None:
        """Called once before the items; `system` can make the prompt's mel audible."""
        ...

    def estimate(self, said: Mapping[Of, Rendering], result: ItemResult) -> None:
        """Put values of one sentence into `result`, per system, and of both if there are two."""
        ...


def needed(estimators: Sequence[Estimator], measures: Collection[str]) -> list[Estimator]:
    """Those that fill one of `measures`: some take long."""
    return [estimator for estimator in estimators if estimator.measures & set(measures)]


class Length:
    """Length, loudness, and whether it is speech at all."""

    measures = frozenset({"seconds_audio", "loudness_lufs", "trouble"})

    def prepare(self, system: System, condition: Condition) -> None:
        """Note the sample rate."""
        self._rate = condition.audio.sample_rate

    def estimate(self, said: Mapping[Of, Rendering], result: ItemResult) -> None:
        """One value each per system."""
        for of, rendering in said.items():
            result.put("seconds_audio", len(rendering.audio) / self._rate, of=of)
            result.put("loudness_lufs", loudness_lufs(rendering.audio, self._rate), of=of)
            result.put("trouble", float(rendering.lost), of=of)


class Intelligibility:
    """Word error rate of a recogniser's transcript; transcripts go into the result, too."""

    measures = frozenset({"word_error_rate", "word_errors_added"})

    def __init__(self, recogniser: Recogniser) -> None:
        self._recogniser = recogniser

    def prepare(self, system: System, condition: Condition) -> None:
        """Note the sample rate."""
        self._rate = condition.audio.sample_rate

    def estimate(self, said: Mapping[Of, Rendering], result: ItemResult) -> None:
        """Nothing for a sentence whose language the recogniser does not know."""
        sentence = result.sentence
        if sentence.language not in self._recogniser.languages:
            return
        for of, rendering in said.items():
            transcript = self._recogniser.transcribe(_at_16_khz(rendering.audio, self._rate))
            errors = text_errors(sentence.text, transcript, sentence.language)
            result.transcripts[of], result.word_errors[of] = transcript, errors
            result.put("word_error_rate", errors.rate, errors.words, of=of)
        if len(said) == 2:
            reference, candidate = (result.word_errors[of] for of in ("reference", "candidate"))
            added = candidate.errors - reference.errors
            result.put("word_errors_added", added / reference.words, reference.words)


class SpeakerSimilarity:
    """Cosines of speaker embeddings: with the prompt, and of the two systems."""

    measures = frozenset({"prompt_similarity", "voice_similarity"})

    def __init__(self, encoder: SpeakerEncoder) -> None:
        self.encoder = encoder
        self._prompt: Floats | None = None

    def prepare(self, system: System, condition: Condition) -> None:
        """Embed the prompt, whose mel `system` makes audible: a speaker file keeps no audio."""
        self._rate = condition.audio.sample_rate
        self._prompt = None
        if len(condition.prompt.mel):
            audio = system.stages.mel_to_waveform(np.ascontiguousarray(condition.prompt.mel.T))
            self._prompt = self._embed(require_finite(system, "vocoder", audio))

    def estimate(self, said: Mapping[Of, Rendering], result: ItemResult) -> None:
        """Nothing where there is too little to have a voice."""
        embeddings = {of: self._embed(rendering.audio) for of, rendering in said.items()}
        for of, embedding in embeddings.items():
            if embedding is not None and self._prompt is not None:
                result.put("prompt_similarity", cosine(self._prompt, embedding), of=of)
        first, second = embeddings.get("reference"), embeddings.get("candidate")
        if first is not None and second is not None:
            result.put("voice_similarity", cosine(first, second))

    def _embed(self, audio: Floats) -> Floats | None:
        return self.encoder.embed(_at_16_khz(audio, self._rate))


class OpinionScore:
    """Predicted MOS, of each system and lost between them.

    Two draws of one sentence are further apart than a loss that matters, so what is lost is taken
    where both systems speak the same tokens.
    """

    def __init__(self, predictor: MosPredictor, measure: str = "mos") -> None:
        """What is lost goes to the measure `{measure}_lost`."""
        self._predictor, self._measure, self._lost = predictor, measure, f"{measure}_lost"
        self.measures = frozenset({measure, self._lost})

    def prepare(self, system: System, condition: Condition) -> None:
        """Note the sample rate."""
        self._rate = condition.audio.sample_rate

    def estimate(self, said: Mapping[Of, Rendering], result: ItemResult) -> None:
        """Nothing where there is too little to rate."""
        for of, rendering in said.items():
            mos = self._predictor.predict(rendering.audio, self._rate)
            if mos is not None:
                result.put(self._measure, mos, of=of)

    def estimate_forced(self, forced: Rendering, result: ItemResult) -> None:
        """What `forced`, the candidate's rendering of the reference's tokens, lost; after
        `estimate`.
        """
        mos = self._predictor.predict(forced.audio, self._rate)
        spoken = result.cells.get((self._measure, "reference"))
        if mos is not None and spoken is not None:
            result.put(self._lost, spoken.value - mos)


def _at_16_khz(audio: Floats, rate: int) -> Floats:
    return resample(audio, rate, RECOGNISER_RATE) if len(audio) else audio
