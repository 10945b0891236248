"""The speaker encoder: Kaldi fbank in, a speaker embedding of 192 values out.

Every voice of the corpus has a fixed random unit vector (`voice_vector`); in 192 dimensions they
are nearly orthogonal. The encoder learns to point at the vector of the voice it hears, whatever is
said, at whatever level. The flow is trained on the same vectors, so the two need not be trained
together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from cosyvoice_cpu.frontend import kaldi_fbank, resample
from training.corpus import Corpus
from training.graph import Graph
from training.sizes import SAMPLE_RATE

EMBEDDING = 192
FBANK_BINS = 80
_SHARPNESS = 20.0  # of the softmax over the cosines to all voices
_FRAMES = (120, 400)  # shortest and longest crop, 100 per second
_LEAST_VARIANCE = 1e-4


def voice_vector(speaker: str) -> NDArray[np.float32]:
    """The fixed random unit vector [192] of a speaker's name."""
    rng = np.random.default_rng(list(hashlib.sha256(speaker.encode()).digest()))
    vector = rng.standard_normal(EMBEDDING)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


class SpeakerEncoder(nn.Module):
    """Convolutions, mean and standard deviation over time, one layer; [B, T, 80] -> [B, 192]."""

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        self.first = nn.Conv1d(FBANK_BINS, width, 5, padding=2)
        self.second = nn.Conv1d(width, width, 3, padding=2, dilation=2)
        self.third = nn.Conv1d(width, width, 3, padding=3, dilation=3)
        self.out = nn.Linear(2 * width, EMBEDDING)

    def forward(self, fbank: Tensor) -> Tensor:
        x = fbank.transpose(1, 2)
        for conv in (self.first, self.second, self.third):
            x = F.relu(conv(x))
        mean = x.mean(2)
        spread = (x.square().mean(2) - mean.square()).clamp(min=_LEAST_VARIANCE).sqrt()
        embedding: Tensor = self.out(torch.cat([mean, spread], 1))
        return embedding


class SpeakerEncoderTask:
    """Trains the encoder on crops of every voice alike."""

    def __init__(
        self, corpora: Iterable[Corpus], heldout: Iterable[Corpus], batch: int = 24
    ) -> None:
        torch.manual_seed(0)
        self.network = SpeakerEncoder()
        self._fbanks = _fbanks_by_speaker(corpora)
        self._heldout = _fbanks_by_speaker(heldout)
        self.speakers = sorted(self._fbanks)
        self._vectors = torch.from_numpy(np.stack([voice_vector(s) for s in self.speakers]))
        self._batch = batch

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        frames = int(rng.integers(*_FRAMES))
        chosen = rng.integers(len(self.speakers), size=self._batch)
        crops = [_crop(self._fbanks[self.speakers[n]], frames, rng) for n in chosen]
        cosines = self._cosines(torch.from_numpy(np.stack(crops)))
        wanted = torch.from_numpy(chosen)
        loss = F.cross_entropy(_SHARPNESS * cosines, wanted)
        near = cosines[torch.arange(len(chosen)), chosen].mean()
        return {"total": loss + 1 - near, "cosine": near}

    def _cosines(self, fbank: Tensor) -> Tensor:
        return F.normalize(self.network(fbank), dim=1) @ self._vectors.T

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Held-out clips: cosine to the own voice's vector, largest to another's, right nearest."""
        own, other, right = [], [], []
        for speaker, clips in self._heldout.items():
            number = self.speakers.index(speaker)
            for fbank in clips:
                cosines = self._cosines(torch.from_numpy(fbank)[None])[0]
                own.append(float(cosines[number]))
                others = torch.cat([cosines[:number], cosines[number + 1 :]])
                other.append(float(others.max()) if len(others) else -1.0)
                right.append(own[-1] > other[-1])
        return {
            "own_cosine": float(np.mean(own)),
            "other_cosine": float(np.mean(other)),
            "right": float(np.mean(right)),
        }


def _fbanks_by_speaker(corpora: Iterable[Corpus]) -> dict[str, list[NDArray[np.float32]]]:
    found: dict[str, list[NDArray[np.float32]]] = {}
    for corpus in corpora:
        for utterance in corpus:
            audio = utterance.audio.astype(np.float32) / np.float32(32768)
            fbank = kaldi_fbank(resample(audio, SAMPLE_RATE, 16000))
            found.setdefault(utterance.speaker, []).append(fbank)
    return found


def _crop(
    clips: list[NDArray[np.float32]], frames: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """[frames, 80] from clips in a row, with a random spectral tilt and noise as other microphones
    have.
    """
    parts: list[NDArray[np.float32]] = []
    while sum(map(len, parts)) < frames:
        clip = clips[int(rng.integers(len(clips)))]
        start = int(rng.integers(max(1, len(clip) - frames)))
        parts.append(clip[start : start + frames])
    fbank = np.concatenate(parts)[:frames]
    fbank = fbank + rng.standard_normal(fbank.shape, np.float32) * np.float32(rng.uniform(0, 0.5))
    centred: NDArray[np.float32] = fbank - fbank.mean(0)  # as the front end leaves it
    return centred


def save_speaker_encoder(network: SpeakerEncoder, path: Path) -> None:
    """Write `campplus.onnx`: `input` float32 [1, T, 80] to `output` float32 [1, 192]."""
    g = Graph()
    x = g.swap("input")
    for conv in (network.first, network.second, network.third):
        x = g.add("Relu", g.conv(x, conv))
    mean = g.add("ReduceMean", x, axes=[2], keepdims=0)
    power = g.add("ReduceMean", g.add("Mul", x, x), axes=[2], keepdims=0)
    variance = g.add("Sub", power, g.add("Mul", mean, mean))
    floor = g.constant(np.float32(_LEAST_VARIANCE))
    spread = g.add("Sqrt", g.add("Max", variance, floor))
    g.linear(g.add("Concat", mean, spread, axis=1), network.out, name="output")
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, "T", FBANK_BINS])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, EMBEDDING])]
    g.save(path, "campplus", inputs, outputs)
