"""f0 in Hz from a log-mel, one value per mel frame (50 Hz).

The original runs this network in float64 whatever the rest does: the excitation multiplies an f0
error by up to 1.1 rad per Hz and frame, and adds it up over the utterance. So the network is
float64 here, weight norm included; `.float()` gives the float32 one.
Source: CosyVoice cosyvoice/hifigan/f0_predictor.py, CausalConvRNNF0Predictor.
"""

from __future__ import annotations

import itertools

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.networks.reference.convolutions import CausalConv

LOOKAHEAD_FRAMES = 3  # of the first convolution
KERNELS = (LOOKAHEAD_FRAMES + 1, 3, 3, 3, 3)


class F0Predictor(nn.Module):
    """Five convolutions and a linear layer. T mel frames."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width = config.f0_channels
        ahead = nn.Conv1d(config.in_channels, width, kernel_size=KERNELS[0])
        back = [CausalConv(width, width, kernel_size=kernel) for kernel in KERNELS[1:]]
        layers = [(weight_norm(conv), nn.ELU()) for conv in (ahead, *back)]
        self.condnet = nn.Sequential(*itertools.chain(*layers))
        self.classifier = nn.Linear(width, 1)
        self.double()

    def forward(self, mel: Tensor, *, finalize: bool = True) -> Tensor:
        """f0 [B, T] in Hz, of the weights' dtype, from log-mel [B, 80, T].

        Without `finalize` the last three frames are context only: [B, T - 3].
        """
        h = mel.to(self.classifier.weight.dtype)
        if finalize:
            h = F.pad(h, (0, LOOKAHEAD_FRAMES))
        f0: Tensor = self.classifier(self.condnet(h).transpose(1, 2))  # [B, T, 1]
        return f0.squeeze(2).abs()
