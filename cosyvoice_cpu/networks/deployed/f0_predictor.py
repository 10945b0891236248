"""The f0 predictor as it runs: float64, each convolution a product of shifted frames.

ONNX Runtime has no float64 convolution, and the network needs float64 as in the original: the
excitation adds an f0 error up over the utterance. Source: as the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosyvoice_cpu.checkpoint.config import VocoderConfig
from cosyvoice_cpu.networks.deployed.storage import layer_tensors
from cosyvoice_cpu.networks.reference import f0_predictor as reference


class F0Predictor(nn.Module):
    """Five products and a linear layer. T mel frames."""

    leaves: ClassVar[tuple[type[nn.Module], ...]] = ()

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        width = config.f0_channels
        kernels = reference.KERNELS
        inputs = [config.in_channels] + [width] * (len(kernels) - 1)
        self.f0 = nn.ModuleDict(
            {
                str(index): nn.Linear(kernel * inner, width)
                for index, (inner, kernel) in enumerate(zip(inputs, kernels, strict=True))
            }
        )
        self.f0["classifier"] = nn.Linear(width, 1)
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
            h = self.f0[str(index)](torch.cat(shifted, dim=1))
            h = h.clamp(min=0) + (h.clamp(max=0).exp() - 1)  # ELU, which has no float64 kernel
        f0: Tensor = self.f0["classifier"](h).squeeze(1)
        return f0.abs().float()

    @classmethod
    def from_reference(cls, network: reference.F0Predictor, config: VocoderConfig) -> F0Predictor:
        """On the tensors of `network`, kernels laid out in the order of frames side by side."""
        with torch.device("meta"):
            own = cls(config)
        tensors = layer_tensors("f0.classifier", network.classifier)
        for i, conv in enumerate(cast("Sequence[nn.Conv1d]", network.convs)):
            layer = layer_tensors(f"f0.{i}", conv)
            layer[f"f0.{i}.weight"] = layer[f"f0.{i}.weight"].transpose(1, 2).flatten(1)
            tensors |= layer  # [out, in, kernel] became [out, kernel * in]
        own.load_state_dict(tensors, assign=True)
        return own.eval()
