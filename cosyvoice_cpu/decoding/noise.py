"""The two fixed noises that the original keeps in memory but in no file.

The original seeds torch with 0 while it builds the flow decoder, draws the decoder's noise, and
goes on drawing from the same generator for everything built after it: the flow's embedding and
speaker projection, the f0 predictor, and at last the vocoder's harmonic noise. torch's CPU
generator is an MT19937 seeded like NumPy's `RandomState(0)`, so both follow from NumPy alone:

    words after seed 0   randn(1, 80, 15000) | flow embedding | speaker projection | f0 predictor |
                         rand(1, 9) | rand(1, 7200000, 9) = harmonic noise

A uniform float takes one 32-bit word and keeps its low 24 bits, which is exact. A normal takes one
word too (Box-Muller over groups of 16), which agrees with torch to 2e-6.

Sources: CosyVoice cosyvoice/flow/flow_matching.py CausalConditionalCFM.__init__ and
cosyvoice/hifigan/generator.py SineGen2.__init__; PyTorch
aten/src/ATen/native/cpu/DistributionTemplates.h normal_fill.
"""

from __future__ import annotations

import threading
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.errors import SynthesisError

_NORMAL_GROUP = 16
_WORD_BLOCK = 1 << 20  # words drawn at a time where they are only skipped: 4 MB
_GROWTH_SAMPLES = 1 << 17  # by which the harmonic noise grows at least: 5 s at 24 kHz


def flow_noise(frames: int, mel_bins: int, length: int) -> Floats:
    """The decoder's noise [mel_bins, frames], the same for every utterance; read-only.

    Frame 0 is the first prompt frame. `length` is that of the whole noise in frames, which decides
    its values. Raises: SynthesisError beyond it.
    """
    if frames > length:
        raise SynthesisError(
            f"{frames} mel frames exceed the {length} of the fixed flow noise",
            "shorten the text or the prompt",
        )
    return _whole_flow_noise(mel_bins, length)[:, :frames]


def harmonic_noise(samples: int, skip_words: int, harmonics: int, length: int) -> Floats:
    """The vocoder's harmonic noise [samples, harmonics], uniform in [0, 1); read-only.

    `skip_words` is `harmonic_noise_skip(...)` of the checkpoint. Rows are drawn when first asked
    for and kept: 0.86 MB for each second of the longest request so far. Safe to call from threads.
    Raises: SynthesisError beyond `length` samples.
    """
    if samples > length:
        raise SynthesisError(
            f"{samples} samples exceed the {length} of the harmonic noise",
            "shorten the text",
        )
    return _harmonic_stream(skip_words, harmonics).first(samples)


def harmonic_noise_skip(
    *,
    flow_noise_frames: int,
    flow_vocab_size: int,
    mel_bins: int,
    spk_embed_dim: int,
    f0_channels: int,
    in_channels: int,
    harmonics: int,
) -> int:
    """Words of the generator drawn between seed 0 and the harmonic noise.

    `flow_noise_frames` is the length of the flow's noise. `flow_vocab_size` rows of width
    `mel_bins` are the flow's token embedding, `spk_embed_dim` the input of its speaker projection,
    `f0_channels` and `in_channels` those of the f0 predictor. The order is that of the official
    yaml: llm, flow, hift.
    """
    flow = _normal_words(flow_vocab_size * mel_bins) + mel_bins * (spk_embed_dim + 1)
    first_conv = f0_channels * (in_channels * 4 + 1)
    other_convs = 4 * f0_channels * (f0_channels * 3 + 1)
    classifier = f0_channels + 1
    initial_phases = harmonics
    return (
        _normal_words(mel_bins * flow_noise_frames)
        + flow
        + (first_conv + other_convs + classifier)
        + initial_phases
    )


class _HarmonicStream:
    """Harmonic noise from its first row on, drawn as far as it was ever needed."""

    def __init__(self, skip_words: int, harmonics: int) -> None:
        self._lock = threading.Lock()
        self._generator = np.random.RandomState(0)
        self._rows: Floats = np.empty((0, harmonics), np.float32)
        remaining = skip_words
        while remaining > 0:
            block = min(remaining, _WORD_BLOCK)
            _draw_words(self._generator, block)
            remaining -= block

    def first(self, samples: int) -> Floats:
        with self._lock:
            drawn, harmonics = self._rows.shape
            if samples > drawn:
                target = max(samples, drawn + _GROWTH_SAMPLES)
                fresh = _uniforms(self._generator, (target - drawn) * harmonics)
                rows = np.concatenate([self._rows, fresh.reshape(-1, harmonics)])
                rows.flags.writeable = False
                self._rows = rows
            return self._rows[:samples]


@lru_cache(maxsize=4)
def _harmonic_stream(skip_words: int, harmonics: int) -> _HarmonicStream:
    return _HarmonicStream(skip_words, harmonics)


@lru_cache(maxsize=2)
def _whole_flow_noise(mel_bins: int, length: int) -> Floats:
    noise = _normals(np.random.RandomState(0), mel_bins * length).reshape(mel_bins, length)
    noise.flags.writeable = False
    return noise


def _normal_words(count: int) -> int:
    """Words that torch takes for `count` >= 16 normals: a last group not full is redrawn."""
    return count + (_NORMAL_GROUP if count % _NORMAL_GROUP else 0)


def _draw_words(generator: np.random.RandomState, count: int) -> NDArray[np.uint32]:
    return generator.randint(0, 1 << 32, size=count, dtype=np.uint32)


def _uniforms(generator: np.random.RandomState, count: int) -> Floats:
    words = _draw_words(generator, count)
    return (words & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)


def _normals(generator: np.random.RandomState, count: int) -> Floats:
    """`count` >= 16 standard normals like torch's `normal_` on the CPU, float32 [count]."""
    uniform = _uniforms(generator, count)
    whole = count - count % _NORMAL_GROUP
    out = np.empty(count, np.float32)
    out[:whole] = _box_muller(uniform[:whole])
    if whole < count:  # torch overwrites the last 16 values with a group of fresh draws
        out[-_NORMAL_GROUP:] = _box_muller(_uniforms(generator, _NORMAL_GROUP))
    return out


def _box_muller(uniform: Floats) -> Floats:
    groups = uniform.reshape(-1, 2, _NORMAL_GROUP // 2)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - groups[:, 0]))
    angle = np.float32(2.0 * np.pi) * groups[:, 1]
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pairs.reshape(-1).astype(np.float32, copy=False)
