"""The stage `measure`: read-back of held-out texts by every network that has a checkpoint.

Each network is judged on its own before the next leans on it: the generator's speech (the floor),
the vocoder on true mels, the flow on true tokens through Griffin-Lim (no vocoder involved) and
through the vocoder, then everything from text. The networks speak through the reference stages, as
a checkpoint's would, and words are counted as `verify --quality` counts them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosyvoice_cpu.decoding.silence import shorten_silence
from cosyvoice_cpu.evaluation.quality.intelligibility import text_errors
from cosyvoice_cpu.evaluation.quality.recogniser import RECOGNISER_RATE, load_recogniser
from cosyvoice_cpu.frontend import resample
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.reference.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.reference.speech_lm import SpeechLM
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from cosyvoice_cpu.networks.reference_stages import ReferenceStages
from training.assemble import voice_config
from training.corpus import Corpus
from training.flow import Flow
from training.griffin_lim import griffin_lim
from training.sizes import MEL_BINS, SAMPLE_RATE
from training.speaker_encoder import voice_vector
from training.speech_lm import sharpen
from training.spelling import SYSTEM_PREFIX, Spelling
from training.token_ids import TokenCorpus
from training.trainer import load_averaged
from training.vocoder import copied
from training.weight_norm import without_weight_norm

Speak = Callable[[int], NDArray[Any]]
logger = logging.getLogger(__name__)


def measure(state: Path, texts: int, only: str = "") -> None:
    """Read back the first `texts` held-out texts; one line per way in `measures.jsonl`.

    `only` names a single way of speaking. Raises: MissingExtraError without the extra `eval`.
    """
    heldout = Corpus(state / "corpus", "heldout")
    load_recogniser()  # so that a missing package shows before the networks are loaded
    for name, (steps, speak) in _ways(state, heldout).items():
        if only not in ("", name):
            continue
        spoken = [heldout[i].text for i in range(min(texts, len(heldout)))]
        rate = word_error_rate(spoken, speak)
        line = {
            "way": name,
            "steps": steps,
            "texts": len(spoken),
            "word_error_rate": round(rate, 4),
        }
        logger.info("%s", json.dumps(line))
        with (state / "measures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": round(time.time())}) + "\n")


def word_error_rate(texts: Sequence[str], speak: Speak) -> float:
    """Word errors (0 to 1 and more) of `speak(i)`, 24 kHz audio [n], against `texts[i]`; one line
    per text in the log.
    """
    recogniser = load_recogniser()
    wrong = words = 0
    for number, text in enumerate(texts):
        heard = recogniser.transcribe(resample(speak(number), SAMPLE_RATE, RECOGNISER_RATE))
        errors = text_errors(text, heard)
        wrong, words = wrong + errors.errors, words + errors.words
        logger.info("%d/%d | %s | %s", errors.errors, errors.words, text, heard)
    return wrong / max(1, words)


def _ways(state: Path, heldout: Corpus) -> dict[str, tuple[dict[str, int], Speak]]:
    """Every way of speaking that the trained networks allow, with the steps of the runs it uses."""
    voice, steps = load_voice(state)

    def of(*runs: str) -> dict[str, int] | None:
        if not all(run in steps for run in runs):
            return None
        later = [f"{run}_{kind}" for run in runs for kind in ("tuning", "harmonics", "adversarial")]
        return {run: steps[run] for run in (*runs, *later) if run in steps}

    def audio(number: int) -> NDArray[Any]:
        return heldout[number].audio.astype(np.float32) / 32768

    def true_mel(number: int) -> NDArray[np.float32]:
        return np.ascontiguousarray(heldout[number].mel.astype(np.float32).T)

    def copy(number: int) -> NDArray[Any]:
        return copy_synthesis(voice.vocoder, heldout, number)

    def flow_mel(ids: list[int], number: int) -> NDArray[np.float32]:
        return voice.tokens_to_mel(
            ids,
            prompt_tokens=[],
            prompt_mel=np.zeros((0, MEL_BINS), np.float32),
            embedding=voice_vector(heldout[number].speaker),
        )

    def true_tokens(number: int) -> list[int]:
        return [int(i) for i in tokens.ids(number)]

    def read(number: int) -> NDArray[Any]:
        ids = voice.generate_speech_tokens(
            spelling.encode(heldout[number].text), prompt_text_ids=prefix, seed=number
        )
        kept = shorten_silence(ids, COSYVOICE3.silent_tokens, COSYVOICE3.silent_run_limit)
        return voice.mel_to_waveform(flow_mel(kept, number)) if kept else np.zeros(960)

    ways: dict[str, tuple[dict[str, int] | None, Speak]] = {
        "generator": ({}, audio),
        "true mel, exact phase": (of("vocoder"), copy),
        "true mel": (of("vocoder", "f0"), lambda n: voice.mel_to_waveform(true_mel(n))),
        "true tokens, Griffin-Lim": (
            of("flow"),
            lambda n: griffin_lim(flow_mel(true_tokens(n), n)),
        ),
        "true tokens": (
            of("flow", "vocoder", "f0"),
            lambda n: voice.mel_to_waveform(flow_mel(true_tokens(n), n)),
        ),
        "text": (of("speech_lm", "flow", "vocoder", "f0"), read),
    }
    if "flow" in steps:
        tokens = TokenCorpus(state / "corpus", state / "tokens", "heldout")
    if "speech_lm" in steps:
        spelling = Spelling(state / "text")
        prefix = spelling.encode(SYSTEM_PREFIX)
    return {name: (used, speak) for name, (used, speak) in ways.items() if used is not None}


def load_voice(state: Path) -> tuple[ReferenceStages, dict[str, int]]:
    """The reference stages on the runs' averaged weights, and the step of every run there is.

    A network whose run has not begun has random weights.
    """
    text = state / "text"
    config = voice_config(Spelling(text).rows if text.exists() else 1)
    flow = Flow()
    lm: SpeechLM = SpeechLM(config.speech_lm)
    vocoder = without_weight_norm(Vocoder(config.vocoder))
    f0: F0Predictor = vocoder.f0_predictor
    # In this order: a tuned network takes the place of the one before, and f0 is part of all
    # vocoders.
    runs = {
        "speech_lm": lm,
        "flow": flow,
        "flow_tuning": flow,
        "vocoder": vocoder,
        "vocoder_tuning": vocoder,
        "vocoder_adversarial": vocoder,
        "f0": f0,
    }
    steps = {
        run: load_averaged(state / run, network)
        for run, network in runs.items()
        if (state / run / "checkpoint.pt").exists()
    }
    sharpen(lm)
    voice = ReferenceStages(
        config,
        COSYVOICE3,
        speech_lm=lm.eval(),
        flow_encoder=flow.encoder.eval(),
        flow_estimator=flow.estimator.eval(),
        vocoder=vocoder.eval(),
    )
    return voice, steps


@torch.no_grad()
def copy_synthesis(network: Vocoder, corpus: Corpus, number: int) -> NDArray[Any]:
    """Audio [480 T] of a text's true mel with the recording's own f0 and phase."""
    torch.manual_seed(0)
    audio: NDArray[np.float32] = copied(network, network, corpus[number])[0].numpy()
    return audio
