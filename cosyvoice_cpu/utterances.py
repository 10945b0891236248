"""The one request that every component can be run on: ids, prompt and embedding of an utterance.

Parity, calibration, timing, profile and gate all run components on these; see
`cosyvoice_cpu.component_runner`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Manifest

LOWEST_TEXT_IDS = 200  # single bytes in every byte-level vocabulary, so present in all


@dataclass(frozen=True, eq=False)
class Utterance:
    """One utterance, teacher-forced: its speech tokens are given, not drawn."""

    name: str
    prompt_text_ids: list[int]
    text_ids: list[int]
    prompt_tokens: list[int]  # [P]
    tokens: list[int]  # [N], behind the prompt's
    prompt_mel: Floats  # [frames of P tokens, mel bins], log-mel
    embedding: Floats  # [192], as cached


def random_utterances(
    manifest: Manifest, count: int = 1, prompt: int = 25, tokens: int = 50, seed: int = 0
) -> list[Utterance]:
    """`count` utterances of random ids of the model's own range: no audio, no front end needed.

    `prompt` and `tokens` are numbers of speech tokens.
    """
    rng = np.random.default_rng(seed)
    synthesis = manifest.synthesis
    frames = manifest.audio.frames_of(prompt)

    def speech(number: int) -> list[int]:
        return [int(i) for i in rng.integers(0, synthesis.speech_vocabulary, number)]

    def text(number: int) -> list[int]:
        return [int(i) for i in rng.integers(0, LOWEST_TEXT_IDS, number)]

    utterances = []
    for number in range(count):
        shape = (frames, synthesis.mel.num_mels)
        utterances.append(
            Utterance(
                name=f"random {number + 1}",
                prompt_text_ids=text(8),
                text_ids=text(12),
                prompt_tokens=speech(prompt),
                tokens=speech(tokens),
                # Log-mel of speech lies about -6 with a spread of 2.
                prompt_mel=(rng.standard_normal(shape) * 2 - 6).astype(np.float32),
                embedding=rng.standard_normal(synthesis.speaker_embedding_size).astype(np.float32),
            )
        )
    return utterances
