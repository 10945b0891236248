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
_FLOW_BLOCK = 1024  # frames: the whole noise takes 50 ms, a sentence needs a fraction of it
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
    drawn = min(length, -(-frames // _FLOW_BLOCK) * _FLOW_BLOCK)
    return _flow_noise(mel_bins, length, drawn)[:, :frames]


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


@lru_cache(maxsize=4)
def _flow_noise(mel_bins: int, length: int, frames: int) -> Floats:
    """The first `frames` columns of `mel_bins * length` normals, a multiple of 16, drawn row by row
    like torch's `normal_` on the CPU.
    """
    groups = _flow_words(mel_bins * length).reshape(-1, 2, _NORMAL_GROUP // 2)
    starts = np.arange(mel_bins) * length
    first, offset = starts // _NORMAL_GROUP, starts % _NORMAL_GROUP
    needed = first[:, None] + np.arange(1 + (frames - 1) // _NORMAL_GROUP + 1)
    normals = _box_muller(_unit_interval(groups[np.minimum(needed, len(groups) - 1)]))
    columns = offset[:, None] + np.arange(frames)
    noise: Floats = np.take_along_axis(normals.reshape(mel_bins, -1), columns, axis=1)
    noise.flags.writeable = False
    return noise


@lru_cache(maxsize=1)
def _flow_words(count: int) -> NDArray[np.uint32]:
    return _draw_words(np.random.RandomState(0), count)


def _normal_words(count: int) -> int:
    """Words that torch takes for `count` >= 16 normals: a last group not full is redrawn."""
    return count + (_NORMAL_GROUP if count % _NORMAL_GROUP else 0)


def _draw_words(generator: np.random.RandomState, count: int) -> NDArray[np.uint32]:
    return generator.randint(0, 1 << 32, size=count, dtype=np.uint32)


def _uniforms(generator: np.random.RandomState, count: int) -> Floats:
    return _unit_interval(_draw_words(generator, count))


def _unit_interval(words: NDArray[np.uint32]) -> Floats:
    return (words & np.uint32(0xFFFFFF)).astype(np.float32) * np.float32(2.0**-24)


def _box_muller(uniform: Floats) -> Floats:
    """Normals [..., 2, 8] of uniforms [..., 2, 8]: eight radii, eight angles."""
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - uniform[..., 0, :]))
    angle = np.float32(2.0 * np.pi) * uniform[..., 1, :]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-2)
