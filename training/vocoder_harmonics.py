"""The vocoder learns where harmonics lie: complex spectra of speech whose harmonics have one phase.

A recording's harmonics have phases of their own that no mel tells, so a comparison of complex
spectra teaches little: after all training before, the vocoder's spectra agreed with the recording's
in phase below 800 Hz and nowhere else, and above 2 kHz it made noise in the place of harmonics.
Spoken again with every harmonic at phase zero where a pulse is (`HibariVoice(steady=True)`), the
harmonics follow from mel and excitation alone, and can be learned.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from training.corpus import Corpus
from training.quick_vocoder import quickened
from training.vocoder import VocoderTask, copied
from training.vocoder_adversarial import HARMONICS, MEL, HarmonicLoss, MelLoss
from training.whitened_spectra import agreement, whitened_loss

CROPS, FRAMES = 4, 24
WHITENED = 10.0
_BANDS = ((0, 500), (500, 1000), (1000, 1500), (1500, 2000), (2000, 3000), (3000, 4000))  # Hz


class VocoderHarmonicsTask(VocoderTask):
    """Trains the generator on a corpus of steady voices, without an adversary."""

    def __init__(self, corpus: Corpus, heldout: Corpus, steps: int) -> None:
        super().__init__(corpus, heldout, steps)
        quickened(self.network)
        self._mel_loss, self._harmonic_loss = MelLoss(), HarmonicLoss()

    def _batch(self, step: int) -> tuple[int, int]:
        return CROPS, FRAMES

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        made, recorded, f0 = self._pair(rng, step)
        mel, harmonics = self._mel_loss(made, recorded), self._harmonic_loss(made, recorded)
        whitened = whitened_loss(made, recorded, f0)
        return {
            "mel": mel,
            "harmonics": harmonics,
            "whitened": whitened,
            "total": MEL * mel + HARMONICS * harmonics + WHITENED * whitened,
        }

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """As before, and the agreement of the whitened spectra with the recording's by band: 1 is
        the recording, 0 a phase that nothing is known of.
        """
        figures = super().evaluate(network)
        pairs = []
        for number in range(min(12, len(self._heldout))):
            utterance = self._heldout[number]
            audio = torch.from_numpy(utterance.audio.astype(np.float32) / 32768)
            made = copied(network, self.network, utterance)[0]
            pairs.append((made, audio, torch.from_numpy(utterance.f0.copy())))
        for low, high in _BANDS:
            figures[f"agreement_{high}"] = agreement(pairs, low, high)
        return figures
