"""The vocoder learns to sound: adversarial training of the generator.

Spectral losses alone ask for the mean of all that a mel leaves open, and the mean of fine structure
is a blur: between 1 and 4 kHz harmonics smear into noise. Discriminators ask for a spectrogram that
could have been recorded. f0 predictor and excitation stay as they are.

Half of the crops are mels of the flow, as in the tuning before (`vocoder_tuning`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cosyvoice_cpu.frontend.mel import slaney_filters
from training.corpus import Corpus
from training.discriminators import (
    Discriminators,
    discriminator_loss,
    feature_loss,
    generator_loss,
)
from training.quick_vocoder import quickened
from training.sizes import SAMPLE_RATE
from training.trainer import Settings
from training.vocoder_tuning import VocoderTuningTask

CROPS, FRAMES = 4, 24
ADVERSARIAL, FEATURES = 4.0, 10.0  # weights of the discriminators' losses
MEL, HARMONICS = 5.0, 10.0
ALONE = 300  # steps of the discriminators before the generator's first: fresh ones mislead it
RAMP = 100  # steps until they have their whole weight
DISCRIMINATOR_RATE = 5.0  # as a multiple of the generator's
_DISCRIMINATOR_CLIP = 10.0  # gradient norm
_BETAS = (0.8, 0.99)
_MEL_BANDS = {64: 10, 128: 20, 256: 40, 512: 80, 1024: 120, 1920: 160}  # of every window
_HARMONIC_WINDOWS = (2048, 1024, 512)
_HARMONIC_BAND = 5000.0  # Hz
_HARMONIC_RANGE_DB = 50.0  # below a frame's loudest bin; what is softer counts as that


class MelLoss:
    """Mean absolute difference of two signals' log-mels [B, n], over six windows.

    Source: Descript Audio Codec, arXiv 2306.06546, section 3.4.
    """

    def __init__(self) -> None:
        self._parts = [
            (
                torch.from_numpy(
                    slaney_filters(SAMPLE_RATE, window, bands, 0.0, None).astype(np.float32)
                ),
                torch.hann_window(window),
            )
            for window, bands in _MEL_BANDS.items()
        ]

    def __call__(self, generated: Tensor, recorded: Tensor) -> Tensor:
        both = torch.cat([generated, recorded])
        differences = []
        for filters, hann in self._parts:
            window = len(hann)
            spectrum = torch.stft(
                both, window, window // 4, window=hann, center=False, return_complex=True
            )
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
            made, real = (filters @ magnitude + 1e-4 * window / 256).log().chunk(2)
            differences.append((made - real).abs().mean())
        return torch.stack(differences).mean()


class HarmonicLoss:
    """Mean absolute difference of two signals' log magnitudes [B, n] below 5 kHz, bin by bin.

    Mel bands are wider than the space between harmonics from 1 kHz on, and there the spaces were
    filled with noise: with the recording's magnitudes below 4 kHz and its own phases the vocoder of
    MOS 3.0 had 4.0.
    """

    def __init__(self) -> None:
        self._hann = [torch.hann_window(window) for window in _HARMONIC_WINDOWS]

    def __call__(self, generated: Tensor, recorded: Tensor) -> Tensor:
        both = torch.cat([generated, recorded])
        differences = []
        for hann in self._hann:
            window = len(hann)
            bins = round(_HARMONIC_BAND / SAMPLE_RATE * window)
            spectrum = torch.stft(
                both, window, window // 4, window=hann, center=False, return_complex=True
            )[:, :bins]
            made, real = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt().chunk(2)
            loudest = real.amax(1, keepdim=True)
            floor = loudest * 10 ** (-_HARMONIC_RANGE_DB / 20) + 2e-4 * window / 256
            differences.append(((made + floor).log() - (real + floor).log()).abs().mean())
        return torch.stack(differences).mean()


class VocoderAdversarialTask(VocoderTuningTask):
    """Trains the generator against discriminators, which learn beside it."""

    def __init__(
        self, corpus: Corpus, heldout: Corpus, settings: Settings, generated: Path
    ) -> None:
        """`generated` is a folder of `generate_mels` on the same corpus.

        Raises FileNotFoundError without one.
        """
        super().__init__(corpus, heldout, settings.steps, generated)
        quickened(self.network)
        self._chance = corpus.tokens / corpus.tokens.sum()  # the main voice is heard most
        self.discriminators = Discriminators()
        self._settings = settings
        self._optimizer = torch.optim.AdamW(
            self.discriminators.parameters(),
            lr=DISCRIMINATOR_RATE * settings.peak_rate,
            betas=_BETAS,
            weight_decay=settings.weight_decay,
        )
        self._mel_loss, self._harmonic_loss = MelLoss(), HarmonicLoss()
        self._taught = False

    def take_discriminators(self, path: Path) -> None:
        """Begin with the discriminators of an earlier run (`Discriminators.save`): fresh ones first
        undo what was won, for some 3,000 steps.
        """
        self.discriminators.load(path)
        self._taught = True

    def state_dict(self) -> dict[str, Any]:
        """What the trainer saves beside the generator."""
        return {
            "discriminators": self.discriminators.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as a run that saved `state`."""
        self.discriminators.load_state_dict(state["discriminators"])
        self._optimizer.load_state_dict(state["optimizer"])

    def _batch(self, step: int) -> tuple[int, int]:
        return CROPS, FRAMES

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        """The discriminators take their own step on the way.

        Their answers serve them and the generator, so that they are asked once. The generator gets
        their opinion as a direction for its samples: `total` has the whole loss's gradient, and is
        no loss by its value.
        """
        if step == 0 and not self._taught:
            self._begin_alone(rng)
        made, recorded = self._pair(rng, step)
        heard = made.detach().requires_grad_()
        real, fake = self.discriminators(recorded), self.discriminators(heard)
        deceived, features = generator_loss(fake), feature_loss(real, fake)
        weight = min(1.0, step / RAMP)
        opinion = weight * (ADVERSARIAL * deceived + FEATURES * features)
        (direction,) = torch.autograd.grad(opinion, heard, retain_graph=True)
        told_apart = self._teach(discriminator_loss(real, fake), step)
        mel, harmonics = self._mel_loss(made, recorded), self._harmonic_loss(made, recorded)
        spectral = MEL * mel + HARMONICS * harmonics
        return {
            "discriminators": told_apart,
            "deceived": deceived,
            "features": features,
            "mel": mel,
            "harmonics": harmonics,
            "total": spectral + (made * direction).sum(),
        }

    def _begin_alone(self, rng: np.random.Generator) -> None:
        for step in range(ALONE):
            with torch.no_grad():
                made, recorded = self._pair(rng, 0)
            answers = self.discriminators(recorded), self.discriminators(made)
            self._teach(discriminator_loss(*answers), step)

    def _teach(self, loss: Tensor, step: int) -> Tensor:
        """One step of the discriminators; their loss."""
        for group in self._optimizer.param_groups:
            group["lr"] = DISCRIMINATOR_RATE * self._settings.rate(step)
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.discriminators.parameters(), _DISCRIMINATOR_CLIP)
        if torch.isfinite(norm):
            self._optimizer.step()
        return loss
