"""Training of the vocoder: the generator on exact f0 and phase, and the f0 predictor on exact f0.

The released excitation is a staircase, one sine value per 20 ms frame, so the generator has to make
the pitch periods itself. It learns to when the staircase carries the recording's true phase and the
loss compares complex spectra; without that no pitch appears in any reasonable time. At inference
the phase is the running sum of f0, as the official module has it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cosyvoice_cpu.evaluation.quality.mos import load_mos_predictor, missing_packages
from cosyvoice_cpu.frontend.mel import slaney_filters
from cosyvoice_cpu.networks.reference.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from training.corpus import Corpus, Utterance
from training.sizes import HOP, MEL_BINS, SAMPLE_RATE, VOCODER
from training.weight_norm import without_weight_norm

MEL_WINDOW = 1920
WINDOWS = (1920, 1024, 512, 256, 120)  # samples; 120 is a quarter of a pitch period of a low voice
PHASE_WINDOWS = (1024, 512, 256)
PHASE_WEIGHT = 0.5
UNHEARD = 4  # first frames of a crop lack their past, so they carry no loss
_DEPTH_WINDOW = 2048  # samples
TAIL = 5  # frames that the generator needs beyond those it gives: 4 of look-ahead, 1 of overlap-add


def initialize(network: Vocoder) -> None:
    """A start that neither explodes nor has to find the phase first.

    The merge of the nine harmonics begins as a smoothed sawtooth: one value of a sawtooth tells the
    phase. The last convolution begins nearly silent, since exp() of a large value is the usual way
    to diverge.
    """
    order = torch.arange(1, VOCODER.nb_harmonics + 2)
    bins = VOCODER.istft_n_fft // 2 + 1
    with torch.no_grad():
        network.m_source.l_linear.weight.copy_((8 * torch.sinc(order / 10) / order)[None])
        network.m_source.l_linear.bias.zero_()
        network.conv_post.weight.mul_(0.3)
        silent = torch.cat([torch.full((bins,), -4.0), torch.zeros(bins)])
        network.get_parameter("conv_post.bias").copy_(silent)


def exact_source(network: Vocoder, f0: Tensor, phase: Tensor) -> Tensor:
    """The excitation [B, 1, T * 480] from f0 [B, T] in Hz and true phase [B, T] in cycles; noise as
    at inference.
    """
    excitation = network.m_source
    voiced = excitation.voiced(f0)
    order = torch.arange(1, excitation.harmonics + 1)
    sines = (
        VOCODER.nsf_alpha
        * torch.sin(2 * math.pi * ((phase[..., None] * order) % 1))
        * voiced[..., None]
    )
    signal = sines.repeat_interleave(HOP, 1)  # [B, T * 480, 9]
    level = excitation.noise_level(voiced)[..., None].repeat_interleave(HOP, 1)
    source: Tensor = torch.tanh(excitation.l_linear(signal + level * torch.rand_like(signal)))
    return source.transpose(1, 2)


def copied(network: nn.Module, source: Vocoder, utterance: Utterance) -> Tensor:
    """Audio [1, 480 T] that `network` makes of the true mel, f0 and phase, by the excitation of
    `source`.
    """
    f0, phase = (torch.from_numpy(x.copy())[None] for x in (utterance.f0, utterance.phase))
    mel = torch.from_numpy(utterance.mel.astype(np.float32).T)[None]
    audio: Tensor = network(mel, exact_source(source, f0, phase))
    return audio


class SpectralLoss:
    """Log-mel, magnitude and complex-spectrum differences of two signals [B, n]."""

    def __init__(self) -> None:
        filters = slaney_filters(SAMPLE_RATE, MEL_WINDOW, MEL_BINS, 0.0, None)
        self._mel = torch.from_numpy(filters.astype(np.float32))
        self._hann = {size: torch.hann_window(size) for size in WINDOWS}

    def __call__(self, generated: Tensor, recorded: Tensor) -> dict[str, Tensor]:
        mel = magnitude = phase = torch.zeros(())
        for size in WINDOWS:
            hop = HOP if size == MEL_WINDOW else size // 4
            y, x = torch.stft(
                torch.cat([generated, recorded]),
                size,
                hop,
                window=self._hann[size],
                center=False,
                return_complex=True,
            ).chunk(2)
            y_abs, x_abs = y.abs().clamp(min=1e-4), x.abs().clamp(min=1e-4)
            if size == MEL_WINDOW:
                y_mel, x_mel = (torch.log(self._mel @ m + 1e-3) for m in (y_abs, x_abs))
                mel = (y_mel - x_mel).abs().mean()
            convergence = (y_abs - x_abs).norm() / x_abs.norm()
            logarithm = ((y_abs + 1e-2).log() - (x_abs + 1e-2).log()).abs().mean()
            magnitude = magnitude + (0.5 * convergence + 0.5 * logarithm) / len(WINDOWS)
            if size in PHASE_WINDOWS:
                level = x_abs.mean(1, keepdim=True) + 1e-2  # every frame counts alike, loud or soft
                phase = phase + ((y - x).abs() / level).mean() / len(PHASE_WINDOWS)
        return {
            "mel": mel,
            "magnitude": magnitude,
            "phase": phase,
            "total": mel + magnitude + PHASE_WEIGHT * phase,
        }


def periodicity(audio: NDArray[Any], f0: NDArray[np.float32]) -> float:
    """Mean normalized autocorrelation of `audio` at the true period in voiced frames; 1 is a clean
    pitch.
    """
    values = []
    for frame in range(2, len(f0) - 2):
        if f0[frame] > 60:
            period = round(SAMPLE_RATE / float(f0[frame]))
            start, end = frame * HOP - 200, frame * HOP + 680
            a, b = audio[start:end], audio[start - period : end - period]
            values.append(float(a @ b) / (math.sqrt(float(a @ a) * float(b @ b)) + 1e-6))
    return float(np.mean(values)) if values else 0.0


def harmonic_depth(audio: NDArray[Any], f0: NDArray[np.float32]) -> float:
    """Mean level of the harmonics between 2 and 4 kHz above that midway between two, in dB, in
    frames whose pitch is steady; 0 is noise.
    """
    spectrum = torch.stft(
        torch.from_numpy(np.asarray(audio, np.float32)),
        _DEPTH_WINDOW,
        HOP,
        window=torch.hann_window(_DEPTH_WINDOW),
        return_complex=True,
    )
    level = 20 * np.log10(spectrum.abs().numpy() + 1e-4)
    bins_per_hz = _DEPTH_WINDOW / SAMPLE_RATE
    depths = []
    for frame in range(4, min(len(f0), level.shape[1]) - 4):
        pitch, near = float(f0[frame]), f0[frame - 2 : frame + 3]
        if near.min() > 60 and np.ptp(near[::4]) < 0.04 * pitch:
            order = np.arange(math.ceil(2000 / pitch), math.ceil(4000 / pitch))
            on, between = (
                np.rint(place * pitch * bins_per_hz).astype(int) for place in (order, order + 0.5)
            )
            depths.append(level[on, frame] - level[between, frame])
    return float(np.concatenate(depths).mean()) if depths else 0.0


class VocoderTask:
    """Trains the generator, first on short crops, then on larger batches of longer ones."""

    def __init__(self, corpus: Corpus, heldout: Corpus, steps: int) -> None:
        self.network = without_weight_norm(Vocoder(VOCODER))
        initialize(self.network)
        self._corpus, self._heldout, self._steps = corpus, heldout, steps
        self._chance = corpus.chances()
        self._loss = SpectralLoss()

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        named = self.network.named_parameters()
        return [{"params": [p for name, p in named if not name.startswith("f0_predictor.")]}]

    def _batch(self, step: int) -> tuple[int, int]:
        """Crops of a step, and the frames of each."""
        return (4, 32) if step < self._steps * 2 // 3 else (6, 48)

    def _example(self, rng: np.random.Generator) -> tuple[Utterance, NDArray[np.float16]]:
        """An utterance and the mel [2 N, 80] that stands for it."""
        utterance = self._corpus[int(rng.choice(len(self._corpus), p=self._chance))]
        return utterance, utterance.mel

    def _crop(self, rng: np.random.Generator, frames: int) -> tuple[NDArray[Any], ...]:
        """Mel [80, S + 5], f0 and phase [S + 5], audio [480 S] from a place that may touch the end
        of the text.
        """
        utterance, given = self._example(rng)
        total = 2 * utterance.tokens
        start = int(rng.integers(0, max(1, total - frames + 1)))
        end = min(total, start + frames + TAIL)
        missing = frames + TAIL - (end - start)
        audio = (
            utterance.audio[HOP * start : HOP * min(total, start + frames)].astype(np.float32)
            / 32768
        )
        return (
            np.pad(given[start:end].astype(np.float32), ((0, missing), (0, 0))).T,
            np.pad(utterance.f0[start:end], (0, missing)),
            np.pad(utterance.phase[start:end], (0, missing)),
            np.pad(audio, (0, HOP * frames - len(audio))),
        )

    def _pair(self, rng: np.random.Generator, step: int) -> tuple[Tensor, Tensor]:
        """Generated and recorded audio [B, 480 T] of a random batch, without the unheard frames."""
        batch, frames = self._batch(step)
        crops = [self._crop(rng, frames) for _ in range(batch)]
        mel, f0, phase, audio = (
            torch.from_numpy(np.stack(parts)) for parts in zip(*crops, strict=True)
        )
        source = exact_source(self.network, f0, phase)
        made = self.network(mel, source, finalize=False)
        heard = HOP * UNHEARD
        return made[:, heard:], audio[:, heard:]

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        made, recorded = self._pair(rng, step)
        return self._loss(made, recorded)

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Copy synthesis of 12 held-out texts: the losses, periodicity and depth of the harmonics
        beside those of the originals, and MOS where its predictor is installed.
        """
        predictor = None if missing_packages() else load_mos_predictor()
        sums: dict[str, float] = {}
        count = min(12, len(self._heldout))
        for number in range(count):
            utterance = self._heldout[number]
            made = copied(network, self.network, utterance)
            audio = utterance.audio.astype(np.float32) / 32768
            losses = {
                k: float(v) for k, v in self._loss(made, torch.from_numpy(audio)[None]).items()
            }
            losses["periodicity"] = periodicity(made[0].numpy(), utterance.f0)
            losses["periodicity_original"] = periodicity(audio, utterance.f0)
            losses["depth_db"] = harmonic_depth(made[0].numpy(), utterance.f0)
            losses["depth_original_db"] = harmonic_depth(audio, utterance.f0)
            if predictor is not None:
                losses["mos"] = predictor.predict(made[0].numpy(), SAMPLE_RATE) or 1.0
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value / count
        return sums


class F0Task:
    """Trains the f0 predictor, in Hz, by the mean absolute error."""

    def __init__(self, corpus: Corpus, heldout: Corpus, batch: int = 16, frames: int = 64) -> None:
        self.network = without_weight_norm(F0Predictor(VOCODER)).float()
        with torch.no_grad():  # the output is in Hz: start at that scale
            self.network.classifier.weight.mul_(100)
            self.network.classifier.bias.fill_(100.0)
        self._corpus, self._heldout = corpus, heldout
        self._batch, self._frames = batch, frames
        self._chance = corpus.chances()

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        return [
            {"params": list(self.network.condnet.parameters())},
            {"params": list(self.network.classifier.parameters()), "scale": 30.0},
        ]

    def _crop(self, rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mel [80, frames] and f0 [frames]; a little noise on the mel stands for the flow's
        inexactness.
        """
        utterance = self._corpus[rng.choice(len(self._corpus), p=self._chance)]
        start = int(rng.integers(0, max(1, 2 * utterance.tokens - self._frames + 1)))
        mel = utterance.mel[start : start + self._frames].astype(np.float32)
        mel += rng.standard_normal(mel.shape, np.float32) * np.float32(rng.uniform(0, 0.15))
        missing = self._frames - len(mel)
        f0 = np.pad(utterance.f0[start : start + self._frames], (0, missing))
        return np.pad(mel, ((0, missing), (0, 0))).T, f0

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        crops = [self._crop(rng) for _ in range(self._batch)]
        mel, f0 = (torch.from_numpy(np.stack(parts)) for parts in zip(*crops, strict=True))
        error = (self.network(mel) - f0).abs().mean()
        return {"hz": error, "total": error / 10}

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Over 100 held-out texts: mean and median error in Hz where both are voiced, gross and
        voicing errors.
        """
        errors, gross, voicing = [], [], []
        for number in range(min(100, len(self._heldout))):
            utterance = self._heldout[number]
            mel = torch.from_numpy(utterance.mel.astype(np.float32).T)[None]
            guess, true = network(mel)[0].numpy(), utterance.f0
            both = (true > 0) & (guess > VOCODER.nsf_voiced_threshold)
            error = np.abs(guess - true)[both]
            errors.append(error)
            gross.append(error > 0.1 * true[both])
            voicing.append((true > 0) != (guess > VOCODER.nsf_voiced_threshold))
        return {
            "voiced_mae_hz": float(np.concatenate(errors).mean()),
            "voiced_median_hz": float(np.median(np.concatenate(errors))),
            "off_by_10_percent": float(np.concatenate(gross).mean()),
            "voicing_errors": float(np.concatenate(voicing).mean()),
        }
