"""Discriminators of the adversarial training: networks that tell a recording's spectrogram from the
generator's.

They look at magnitudes only, since the 50 Hz excitation leaves phase open. Discriminators of
complex spectra and of the waveform's periods were tried first and ended at a MOS of 1.8 to 2.0,
where these reach 3.2 (the settings differed in more than that).
Source: UnivNet, arXiv 2106.07889, section 2.3; how the power is compressed was chosen here.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

DISCRIMINATORS = "discriminators.safetensors"
"""What a run leaves for a later one, 0.2 MB."""
WINDOWS = (2048, 1024, 512)  # samples
CHANNELS = 16
_SLOPE = 0.1
_FLOOR, _EXPONENT = 1e-4, 0.2  # of the power; a soft logarithm, in which silence is near zero


class SpectrogramDiscriminator(nn.Module):
    """Spectrograms of one window: waveform [B, n] to scores [B, frames * bins] and the features of
    every layer [B, 16, frames, bins'].

    A score is near 1 where it believes the recording and near 0 where the generator.
    """

    hann: Tensor

    def __init__(self, window: int, channels: int = CHANNELS) -> None:
        super().__init__()
        self.register_buffer("hann", torch.hann_window(window), persistent=False)
        self._gain = 1 / float(self.hann.square().sum())
        shapes = [(1, 9, 2), *[(channels, 9, 2)] * 3, (channels, 3, 1)]  # in, bins, stride
        self.convs = nn.ModuleList(
            weight_norm(nn.Conv2d(narrow, channels, (3, bins), (1, stride), (1, bins // 2)))
            for narrow, bins, stride in shapes
        )
        self.score = weight_norm(nn.Conv2d(channels, 1, 3, padding=1))

    def forward(self, wave: Tensor) -> tuple[Tensor, list[Tensor]]:
        window = len(self.hann)
        spectrum = torch.stft(
            wave, window, window // 4, window=self.hann, center=False, return_complex=True
        )
        power = (spectrum.real.square() + spectrum.imag.square()) * self._gain
        level = 2 * ((power + _FLOOR) ** _EXPONENT - _FLOOR**_EXPONENT)
        x = level.transpose(1, 2)[:, None]  # [B, 1, frames, bins]
        features: list[Tensor] = []
        for conv in self.convs:
            x = F.leaky_relu(conv(x), _SLOPE)
            features.append(x)
        return self.score(x).flatten(1), features


class Discriminators(nn.Module):
    """One discriminator per window: waveform [B, n] to what each of them says."""

    def __init__(self, windows: tuple[int, ...] = WINDOWS) -> None:
        super().__init__()
        self.parts = nn.ModuleList(SpectrogramDiscriminator(window) for window in windows)

    def forward(self, wave: Tensor) -> list[tuple[Tensor, list[Tensor]]]:
        return [part(wave) for part in self.parts]

    def save(self, path: Path) -> None:
        """Write the weights in half precision."""
        state = {name: value.half().contiguous() for name, value in self.state_dict().items()}
        path.write_bytes(save(state))

    def load(self, path: Path) -> None:
        """Take weights that `save` wrote."""
        self.load_state_dict(load(path.read_bytes()))


Judgement = list[tuple[Tensor, list[Tensor]]]
"""Scores and features of every discriminator."""


def discriminator_loss(real: Judgement, fake: Judgement) -> Tensor:
    """Least squares: recordings to 1, generated to 0; 0.5 is a discriminator that knows nothing.

    Source: LSGAN, arXiv 1611.04076.
    """
    parts = [
        (1 - mine).square().mean() + theirs.square().mean()
        for (mine, _), (theirs, _) in zip(real, fake, strict=True)
    ]
    return torch.stack(parts).mean()


def generator_loss(fake: Judgement) -> Tensor:
    """Least squares: generated to 1."""
    return torch.stack([(1 - score).square().mean() for score, _ in fake]).mean()


def feature_loss(real: Judgement, fake: Judgement) -> Tensor:
    """How far the features of generated audio are from the recording's, as a part of their mean
    magnitude.

    Source: MelGAN, arXiv 1910.06711; relative, so that no layer outweighs another, as in
    arXiv 2306.06546.
    """
    parts = [
        (mine.detach() - theirs).abs().mean() / (mine.detach().abs().mean() + 1e-4)
        for (_, recorded), (_, generated) in zip(real, fake, strict=True)
        for mine, theirs in zip(recorded, generated, strict=True)
    ]
    return torch.stack(parts).mean()
