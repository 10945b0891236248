"""The speech tokenizer: whisper log-mel in, 25 ids per second out.

A convolutional encoder, a finite scalar quantizer of 7 ternary digits (2187 codes, arXiv
2309.15505) and a small decoder whose heads say what the codes must carry: the phoneme (content),
pitch, voicing and energy (prosody), and the mel spectrogram (the rest). It has no attention, so a
clip of 30 s is treated exactly as the crops it was trained on.

Half of the training crops are heard with a warped frequency axis while the targets stay: codes say
what is spoken and how, and leave out whose vocal tract it was, which is the speaker embedding's to
say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from training.corpus import Corpus
from training.phonemes import CLASSES, SILENCE, token_labels
from training.sizes import LOG_MEL_BINS, MEL_BINS

DIGITS = 7
LEVELS = 3
CODES = LEVELS**DIGITS
IGNORED = -100  # label of padding
_PITCH_REFERENCE = 200.0  # Hz
_REPEAT_WINDOW = (
    10  # tokens the sampler looks back for a repetition (CosyVoice utils/common.py, ras_sampling)
)


class ConvBlock(nn.Module):
    """Depthwise convolution, then a gated-width pointwise network, residual (ConvNeXt, arXiv
    2201.03545).

    Shapes: [B, N, C] -> [B, N, C].
    """

    def __init__(self, width: int, kernel: int = 15) -> None:
        super().__init__()
        self.depthwise = nn.Conv1d(width, width, kernel, padding=kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.depthwise(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.narrow(F.gelu(self.wide(self.norm(h))))
        return out


class SpeechTokenizer(nn.Module):
    """Encoder, quantizer, decoder and heads."""

    def __init__(self, width: int = 224, encoder_blocks: int = 6, decoder_blocks: int = 2) -> None:
        super().__init__()
        self.first = nn.Conv1d(LOG_MEL_BINS, width, 3, stride=2, padding=1)
        self.second = nn.Conv1d(width, width, 3, stride=2, padding=1)
        self.encoder = nn.ModuleList(ConvBlock(width) for _ in range(encoder_blocks))
        self.norm = nn.LayerNorm(width)
        self.down = nn.Linear(width, DIGITS)
        self.direct = nn.Linear(width, CLASSES)  # phonemes without the quantizer, for its gradient
        self.up = nn.Linear(DIGITS, width)
        self.decoder = nn.ModuleList(ConvBlock(width) for _ in range(decoder_blocks))
        self.phoneme = nn.Linear(width, CLASSES)
        self.prosody = nn.Linear(width, 4)
        self.mel = nn.Linear(width, 2 * MEL_BINS)
        self.powers: Tensor
        self.register_buffer("powers", LEVELS ** torch.arange(DIGITS), persistent=False)

    def encode(self, log_mel: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 128, T] -> hidden [B, N, C] and soft digits in (-1, 1) [B, N, 7], N = ceil(ceil(T /
        2) / 2).
        """
        x = F.gelu(self.second(F.gelu(self.first(log_mel)))).transpose(1, 2)
        for block in self.encoder:
            x = block(x)
        x = self.norm(x)
        return x, torch.tanh(self.down(x))

    def codes(self, log_mel: Tensor) -> Tensor:
        """[B, 128, T] -> codes [B, N] int64, digit k counting 3^k."""
        _, soft = self.encode(log_mel)
        return ((soft.round() + 1) * self.powers).sum(-1).long()

    def forward(self, log_mel: Tensor) -> dict[str, Tensor]:
        hidden, soft = self.encode(log_mel)
        hard = soft + (soft.round() - soft).detach()  # straight-through
        y = self.up(hard)
        for block in self.decoder:
            y = block(y)
        return {
            "phoneme": self.phoneme(y),
            "direct": self.direct(hidden),
            "prosody": self.prosody(y),
            "mel": self.mel(y),
            "soft": soft,
        }


def warp_frequency(log_mel: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """`log_mel` [T, 128] with bin b read from bin b * factor (linear interpolation, the top bin
    held).
    """
    bins = np.minimum(np.arange(LOG_MEL_BINS) * factor, LOG_MEL_BINS - 1)
    low = bins.astype(int)
    high = np.minimum(low + 1, LOG_MEL_BINS - 1)
    part = (bins - low).astype(np.float32)
    warped: NDArray[np.float32] = log_mel[:, low] * (1 - part) + log_mel[:, high] * part
    return warped


def repeat_penalty(soft: Tensor, speech: Tensor) -> Tensor:
    """How far tokens of speech fall short of differing from each of the 10 before by one digit's
    step; scalar.

    The sampler replaces any id that occurred within its last 10 by a draw from the whole
    distribution, so codes that hold still while a sound is held would be replaced by noise. `soft`
    [B, N, 7], `speech` [B, N] 0 or 1.
    """
    total = soft.new_zeros(())
    for back in range(1, _REPEAT_WINDOW + 1):
        distance = (soft[:, back:] - soft[:, :-back]).abs().sum(-1)
        total = total + (F.relu(1.5 - distance) * speech[:, back:] * speech[:, :-back]).mean()
    return total / _REPEAT_WINDOW


class TokenizerTask:
    """Trains a `SpeechTokenizer` on crops of the corpus."""

    def __init__(
        self, corpus: Corpus, heldout: Corpus, batch: int = 12, seconds: float = 3.0
    ) -> None:
        self.network = SpeechTokenizer()
        self._corpus, self._heldout = corpus, heldout
        self._batch, self._length = batch, round(seconds * 25)
        self._chance = corpus.tokens / corpus.tokens.sum()

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def _crop(self, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """One crop of `_length` tokens, padded at the end; `speech` is 1 where a phoneme sounds."""
        utterance = self._corpus[rng.choice(len(self._corpus), p=self._chance)]
        start = int(rng.integers(0, max(1, utterance.tokens - self._length + 1)))
        end = min(utterance.tokens, start + self._length)
        pad = self._length - (end - start)
        labels = token_labels(utterance)[start:end]
        log_mel = utterance.log_mel[4 * start : 4 * end].astype(np.float32)
        if rng.random() < 0.5:
            log_mel = warp_frequency(log_mel, rng.uniform(0.84, 1.2))
        log_mel = log_mel + rng.uniform(-0.15, 0.1)  # recording level; 0.25 is 10 dB
        log_mel = log_mel + rng.standard_normal(log_mel.shape, np.float32) * rng.uniform(0, 0.06)
        f0 = utterance.f0[2 * start : 2 * end].reshape(-1, 2)
        mel = utterance.mel[2 * start : 2 * end].astype(np.float32) / 3 + 2  # about unit scale
        prosody = np.stack(
            [
                np.where(f0 > 0, 3 * np.log(np.maximum(f0, 60) / _PITCH_REFERENCE), 0).mean(1),
                (f0 > 0).mean(1),
                *mel.mean(1).reshape(-1, 2).T,
            ],
            1,
        )
        return {
            "log_mel": np.pad(log_mel, ((0, 4 * pad), (0, 0)), constant_values=-1.0).T,
            "labels": np.pad(labels, (0, pad), constant_values=IGNORED),
            "speech": np.pad((labels != SILENCE).astype(np.float32), (0, pad)),
            "prosody": np.pad(prosody.astype(np.float32), ((0, pad), (0, 0))),
            "mel": np.pad(mel.reshape(-1, 2 * MEL_BINS), ((0, pad), (0, 0))),
        }

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        crops = [self._crop(rng) for _ in range(self._batch)]
        batch = {k: torch.from_numpy(np.stack([crop[k] for crop in crops])) for k in crops[0]}
        out = {name: value.float() for name, value in self.network(batch["log_mel"]).items()}
        valid = (batch["labels"] != IGNORED).float()[..., None]

        def l1(name: str) -> Tensor:
            error: Tensor = ((out[name] - batch[name]).abs() * valid).sum()
            count: Tensor = valid.sum() * out[name].shape[-1]
            return error / count

        def cross_entropy(name: str) -> Tensor:
            return F.cross_entropy(out[name].transpose(1, 2), batch["labels"], ignore_index=IGNORED)

        losses = {
            "phoneme": cross_entropy("phoneme"),
            "direct": cross_entropy("direct"),
            "prosody": l1("prosody"),
            "mel": l1("mel"),
            "balance": out["soft"]
            .mean((0, 1))
            .square()
            .mean(),  # each digit's levels equally often
            "repeat": repeat_penalty(out["soft"], batch["speech"]),
        }
        weights = {
            "phoneme": 1,
            "direct": 0.3,
            "prosody": 1,
            "mel": 1,
            "balance": 0.1,
            "repeat": 0.3,
        }
        losses["total"] = sum((weights[k] * v for k, v in losses.items()), torch.zeros(()))
        return losses

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Over 60 held-out texts: phonemes right, codes in use, their entropy, repeats within 10 in
        speech.
        """
        right = direct = total = repeats = spoken = 0
        counts = np.zeros(CODES)
        for number in range(min(60, len(self._heldout))):
            utterance = self._heldout[number]
            log_mel = torch.from_numpy(utterance.log_mel.astype(np.float32).T)[None]
            labels = torch.from_numpy(token_labels(utterance))
            out = network(log_mel)
            codes = self.network.codes(log_mel)[0].numpy()
            right += int((out["phoneme"][0].argmax(-1) == labels).sum())
            direct += int((out["direct"][0].argmax(-1) == labels).sum())
            total += len(labels)
            np.add.at(counts, codes, 1)
            for i in np.flatnonzero(labels.numpy() != SILENCE):
                spoken += 1
                repeats += int(codes[i] in codes[max(0, i - _REPEAT_WINDOW) : i])
        share = counts[counts > 0] / counts.sum()
        return {
            "phonemes_right": right / total,
            "before_quantizer": direct / total,
            "codes": float((counts > 0).sum()),
            "bits": float(-(share * np.log2(share)).sum()),
            "repeats": repeats / max(1, spoken),
        }
