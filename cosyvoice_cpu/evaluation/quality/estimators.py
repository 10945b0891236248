"""What can be heard of an utterance: its length, loudness, words and voice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.evaluation.quality.loudness import loudness_lufs
from cosyvoice_cpu.evaluation.quality.measures import Of
from cosyvoice_cpu.evaluation.quality.recogniser import READ_BACK_RATE, Recogniser
from cosyvoice_cpu.evaluation.quality.speakers import VoiceJudge, cosine
from cosyvoice_cpu.evaluation.quality.systems import Setting, Side, Utterance, require_finite
from cosyvoice_cpu.evaluation.quality.table import ItemResult
from cosyvoice_cpu.evaluation.quality.words import text_errors
from cosyvoice_cpu.frontend.resampling import resample

_WORDS = frozenset({"word_error_rate", "word_errors_added"})
_VOICES = frozenset({"prompt_similarity", "voice_similarity"})


@dataclass(frozen=True)
class Ears:
    """Who listens; None where the packages are missing."""

    recogniser: Recogniser | None = None
    judge: VoiceJudge | None = None

    def for_measures(self, names: Collection[str]) -> Ears:
        """Only those that the measures called `names` need: listening takes time."""
        return Ears(
            self.recogniser if _WORDS & set(names) else None,
            self.judge if _VOICES & set(names) else None,
        )


class Listener:
    """Listens to both sides of an item and notes the result."""

    def __init__(self, ears: Ears, side: Side, setting: Setting) -> None:
        """`side` makes the prompt's mel audible, since a speaker file keeps no audio."""
        self._ears, self._rate = ears, setting.rules.sample_rate
        self._prompt_voice: Floats | None = None
        if ears.judge and len(setting.prompt.mel):
            audio = side.stages.mel_to_waveform(np.ascontiguousarray(setting.prompt.mel.T))
            self._prompt_voice = self._voice(require_finite(side, "vocoder", audio))

    def listen(self, said: dict[Of, Utterance], result: ItemResult) -> None:
        """Note what each side said, and how far the two are apart."""
        voices: list[Floats | None] = []
        for of, utterance in said.items():
            audio = utterance.audio
            result.put("seconds_audio", len(audio) / self._rate, of=of)
            result.put("loudness_lufs", loudness_lufs(audio, self._rate), of=of)
            result.put("trouble", float(utterance.lost), of=of)
            self._read_back(audio, of, result)
            voice = self._voice(audio)
            if voice is not None and self._prompt_voice is not None:
                result.put("prompt_similarity", cosine(self._prompt_voice, voice), of=of)
            voices.append(voice)
        if len(said) == 2:
            self._compare(voices, result)

    def _compare(self, voices: list[Floats | None], result: ItemResult) -> None:
        first, second = voices
        if first is not None and second is not None:
            result.put("voice_similarity", cosine(first, second))
        errors = result.word_errors
        if errors:
            added = errors["candidate"].errors - errors["reference"].errors
            words = errors["reference"].words
            result.put("word_errors_added", added / words, words)

    def _read_back(self, audio: Floats, of: Of, result: ItemResult) -> None:
        recogniser, sentence = self._ears.recogniser, result.sentence
        if recogniser is None or sentence.language not in recogniser.languages:
            return
        heard = recogniser.read_back(self._narrow(audio))
        errors = text_errors(sentence.text, heard)
        result.heard[of], result.word_errors[of] = heard, errors
        result.put("word_error_rate", errors.rate, errors.words, of=of)

    def _voice(self, audio: Floats) -> Floats | None:
        return self._ears.judge.embed(self._narrow(audio)) if self._ears.judge else None

    def _narrow(self, audio: Floats) -> Floats:
        return resample(audio, self._rate, READ_BACK_RATE) if len(audio) else audio
