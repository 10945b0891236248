"""The f0 predictor as it runs: float64, each convolution a product of shifted frames.

ONNX Runtime has no float64 convolution, and the network needs float64 as in the original: the
excitation adds an f0 error up over the utterance. Source: as the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import f0_predictor as reference


class F0Predictor(nn.Module):
    """Five products and a linear layer. T mel frames."""

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width = config.f0_channels
        kernels = reference.KERNELS
        inputs = [config.in_channels] + [width] * (len(kernels) - 1)
        for index, (inner, kernel) in enumerate(zip(inputs, kernels, strict=True)):
            self.add_module(str(index), nn.Linear(kernel * inner, width))
        self.classifier = nn.Linear(width, 1)
        self.double()

    def forward(self, mel: Tensor) -> Tensor:
        """f0 float32 [T] in Hz from log-mel [80, T + 3].

        The last three frames are context: the following frames, or zeros at the end.
        """
        h = mel.transpose(0, 1).double()  # [T + 3, 80]
        for index, kernel in enumerate(reference.KERNELS):
            if index:  # causal; the first one takes its context from the input
                h = F.pad(h, (0, 0, kernel - 1, 0))
            count = h.shape[0] - kernel + 1
            shifted = [h[shift : shift + count] for shift in range(kernel)]
            h = self.get_submodule(str(index))(torch.cat(shifted, dim=1))
            h = h.clamp(min=0) + (h.clamp(max=0).exp() - 1)  # ELU, which has no float64 kernel
        f0: Tensor = self.classifier(h).squeeze(1)
        return f0.abs().float()

    @staticmethod
    def tensors_of(network: reference.F0Predictor) -> dict[str, Tensor]:
        """Those of the reference, kernels laid out in the order of frames side by side."""
        tensors = layer_tensors("classifier", network.classifier)
        for i, conv in enumerate(cast("Sequence[nn.Conv1d]", network.condnet[::2])):
            layer = layer_tensors(str(i), conv)
            layer[f"{i}.weight"] = layer[f"{i}.weight"].transpose(1, 2).flatten(1)
            tensors |= layer  # [out, in, kernel] became [out, kernel * in]
        return tensors
