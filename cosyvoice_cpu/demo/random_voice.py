"""Makes the random checkpoint in `voice/`: the official layout at a hundredth of the size.

    python -m cosyvoice_cpu.demo.random_voice FOLDER

It speaks noise. What differs from other synthetic checkpoints: the networks are smaller still, the
weights are stored in half precision, and some stop ids keep their random score, so that utterances
end by themselves after a natural number of tokens.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.checkpoint.synthetic import TINY, make_synthetic_checkpoint

_WIDTH = 64  # of the flow: one head
_STOPPING = 60  # stop ids of 200 that may be drawn: one token in about twenty


def demo_config() -> CheckpointConfig:
    """The sizes of the networks in `voice/`."""
    flow = replace(
        TINY.flow, estimator=replace(TINY.flow.estimator, dim=_WIDTH, heads=1), vocab_size=1024
    )
    lm = replace(TINY.speech_lm, speech_token_size=1024, speech_table_rows=1224)
    vocoder = replace(TINY.vocoder, base_channels=32, f0_channels=32)
    return replace(TINY, speech_lm=lm, flow=flow, vocoder=vocoder)


def make_demo_checkpoint(folder: Path) -> None:
    """Write the checkpoint to `folder`, which must be new or empty."""
    import torch

    config = demo_config()
    make_synthetic_checkpoint(folder, size=config)
    checkpoint = open_checkpoint(folder)
    for file in checkpoint.files:
        path = folder / file
        if path.suffix != ".pt":
            continue
        state = torch.load(path, weights_only=True)
        if "llm_decoder.weight" in state:
            first = config.speech_lm.speech_token_size
            state["llm_decoder.weight"][first : first + _STOPPING, 0] = 0.0
            del state["llm.model.lm_head.weight"]  # not read, and a copy of the text embedding
        torch.save({key: tensor.half() for key, tensor in state.items()}, path)


if __name__ == "__main__":
    make_demo_checkpoint(Path(sys.argv[1]))
