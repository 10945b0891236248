"""Speakers of random numbers, for tests of files and folders."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cosyvoice_cpu.frontend.speakers import Speaker


def speaker(name: str = "anna", tokens: int = 25) -> Speaker:
    rng = np.random.default_rng(tokens)
    return Speaker(
        name=name,
        generation="cosyvoice3",
        transcript="希望你以后能够做的比我还好呦。",
        prompt_text_ids=np.arange(10, dtype=np.int32),
        speech_tokens=rng.integers(0, 6561, tokens).astype(np.int32),
        mel=rng.normal(size=(2 * tokens, 80)).astype(np.float32),
        embedding=rng.normal(size=192).astype(np.float32),
        speaker_encoder_sha256="a" * 64,
        speech_tokenizer_sha256="b" * 64,
    )


def embedding_alone(name: str = "中文女") -> Speaker:
    return replace(
        speaker(name),
        transcript="",
        prompt_text_ids=np.zeros(0, np.int32),
        speech_tokens=np.zeros(0, np.int32),
        mel=np.zeros((0, 80), np.float32),
        speaker_encoder_sha256="",
        speech_tokenizer_sha256="",
    )
