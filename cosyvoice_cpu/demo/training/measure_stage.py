"""The stage `measure`: read-back of held-out texts by every network that has a checkpoint."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosyvoice_cpu.demo.training.corpus import Corpus
from cosyvoice_cpu.demo.training.flow import Flow, sample_mel
from cosyvoice_cpu.demo.training.measure import Recogniser, griffin_lim, read_back
from cosyvoice_cpu.demo.training.sizes import VOCODER
from cosyvoice_cpu.demo.training.speaker_encoder import voice_vector
from cosyvoice_cpu.demo.training.token_ids import TokenCorpus
from cosyvoice_cpu.demo.training.trainer import load_averaged
from cosyvoice_cpu.demo.training.vocoder import exact_source
from cosyvoice_cpu.networks.f0_predictor import F0Predictor
from cosyvoice_cpu.networks.vocoder import Vocoder

Speak = Callable[[int], NDArray[Any]]
logger = logging.getLogger(__name__)


def measure(state: Path, texts: int) -> None:
    """Read back the first `texts` held-out texts; one line per way in `measures.jsonl`."""
    heldout = Corpus(state / "corpus", "heldout")
    ways: dict[str, tuple[int, Speak]] = {
        "generator": (0, lambda i: heldout[i].audio.astype(np.float32) / 32768)
    }
    vocoder = _vocoder(state)
    if vocoder is not None:
        network, step, has_f0 = vocoder
        ways["vocoder, exact phase"] = (step, lambda i: _exact(network, heldout, i))
        if has_f0:
            ways["vocoder"] = (step, lambda i: vocode(network, heldout[i].mel.astype(np.float32).T))
    if (state / "flow" / "checkpoint.pt").exists():
        flow = Flow()
        step = load_averaged(state / "flow", flow)
        tokens = TokenCorpus(state / "corpus", state / "tokens", "heldout")
        ways["flow, Griffin-Lim"] = (step, lambda i: griffin_lim(flow_mel(flow, tokens, i)))
        if vocoder is not None and has_f0:
            ways["flow, vocoder"] = (step, lambda i: vocode(network, flow_mel(flow, tokens, i)))
    recogniser = Recogniser()
    for name, (step, speak) in ways.items():
        spoken = [heldout[i].text for i in range(min(texts, len(heldout)))]
        rate = read_back(recogniser, spoken, speak, logger.info)
        line = {"way": name, "step": step, "texts": len(spoken), "word_error_rate": round(rate, 4)}
        logger.info("%s", json.dumps(line))
        with (state / "measures.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({**line, "time": round(time.time())}) + "\n")


def _vocoder(state: Path) -> tuple[Vocoder, int, bool] | None:
    """The vocoder with its f0 predictor, the generator's step, and whether f0 has been trained."""
    if not (state / "vocoder" / "checkpoint.pt").exists():
        return None
    network: Vocoder = Vocoder(VOCODER)
    step = load_averaged(state / "vocoder", network)
    has_f0 = (state / "f0" / "checkpoint.pt").exists()
    if has_f0:
        predictor: F0Predictor = network.f0_predictor
        load_averaged(state / "f0", predictor)
    return network, step, has_f0


@torch.no_grad()
def _exact(network: Vocoder, corpus: Corpus, number: int) -> NDArray[np.float32]:
    """Copy synthesis with the recording's own f0 and phase."""
    torch.manual_seed(0)
    utterance = corpus[number]
    f0, phase = (torch.from_numpy(x.copy())[None] for x in (utterance.f0, utterance.phase))
    mel = torch.from_numpy(utterance.mel.astype(np.float32).T)[None]
    audio: NDArray[np.float32] = network(mel, exact_source(network, f0, phase))[0].numpy()
    return audio


@torch.no_grad()
def vocode(network: Vocoder, mel: NDArray[np.float32]) -> NDArray[np.float32]:
    """Audio [480 T] of a log-mel [80, T] as at inference."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(
        mel.shape[1] * VOCODER.samples_per_frame, VOCODER.nb_harmonics + 1, generator=generator
    )
    mels = torch.from_numpy(np.ascontiguousarray(mel))[None]
    f0 = network.f0_predictor(mels)
    audio: NDArray[np.float32] = network(mels, network.excitation(f0, noise))[0].numpy()
    return audio


def flow_mel(flow: Flow, tokens: TokenCorpus, number: int) -> NDArray[np.float32]:
    """Log-mel [80, 2 N] from the true tokens of a held-out text, without a prompt."""
    ids = torch.from_numpy(tokens.ids(number))
    noise = torch.randn(80, 2 * len(ids), generator=torch.Generator().manual_seed(0))
    embedding = torch.from_numpy(voice_vector(tokens.corpus[number].speaker))
    mel: NDArray[np.float32] = sample_mel(flow, ids, noise[:, :0], embedding, noise).numpy()
    return mel
