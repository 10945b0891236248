"""Training of the flow: speech tokens to log-mel by conditional flow matching (arXiv 2210.02747).

As the original trains it (CosyVoice cosyvoice/flow/flow_matching.py and flow.py): straight paths
from noise to mel, time drawn through a cosine, the beginning of half of the rows given as prompt,
guidance dropout of all conditions together, and the chunked attention mask in half of the batches.
Batches are made of whole stretches of a stream of utterances, so they hold no padding, and some are
long: at inference the network sees prompt and target together.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import SolverPreset
from cosyvoice_cpu.decoding.solver import solve, time_grid
from cosyvoice_cpu.generations.cosyvoice3 import COSYVOICE3
from cosyvoice_cpu.networks.reference.flow_encoder import FlowEncoder
from cosyvoice_cpu.networks.reference.flow_estimator import FlowEstimator
from training.sizes import FLOW
from training.speech_tokenizer import DIGITS, LEVELS
from training.token_ids import IdTable, TokenCorpus

SIGMA_MIN = 1e-6
GUIDANCE_DROPOUT = 0.2
PROMPT_SHARE = 0.7  # longest prompt, as a part of the stretch
EMBEDDING_JITTER = 0.5  # norm of the noise on the unit speaker embedding: clips of one voice differ
# tokens per row, rows, share of the batches; every batch has about 600 tokens, 24 s
STRETCHES = ((75, 8, 0.5), (150, 4, 0.3), (300, 2, 0.2))


class Flow(nn.Module):
    """Both halves of `flow.pt`."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder: FlowEncoder = FlowEncoder(FLOW)
        self.estimator: FlowEstimator = FlowEstimator(FLOW.estimator)


def initialize(network: Flow, table: IdTable, mel_mean: NDArray[np.float32]) -> None:
    """Modulation from zero (arXiv 2212.09748), output at the mean log-mel, token table by the
    codes' digits.

    Log-mel has a mean near -6, which would otherwise take thousands of steps to learn; codes that
    differ in one digit sound alike, so a table made from digits is learned about 1.5 times faster
    than a random one.
    """
    estimator = network.estimator
    with torch.no_grad():
        for name, value in estimator.named_parameters():
            if name.startswith("norm_out.") or ".attn_norm." in name:
                value.zero_()
        estimator.proj_out.weight.zero_()
        estimator.proj_out.bias.copy_(torch.from_numpy(mel_mean))
        codes = torch.from_numpy(table.codes_of_ids())
        digits = codes[:, None] // LEVELS ** torch.arange(DIGITS) % LEVELS - 1.0
        digits[codes < 0] = 0
        weight = network.encoder.input_embedding.weight
        weight.copy_(
            digits @ torch.randn(DIGITS, weight.shape[1]) * 0.5 + 0.1 * torch.randn_like(weight)
        )


def cosine_time(u: Tensor) -> Tensor:
    """Uniform 0..1 to flow time 0..1, dense near 0, where the mel is still all noise."""
    return 1 - torch.cos(u * 0.5 * math.pi)


@torch.no_grad()
def sample_mel(
    network: Flow,
    ids: Tensor,
    speaker_embedding: Tensor,
    noise: Floats,
    *,
    streaming: bool = False,
) -> Floats:
    """Log-mel [80, 2 N] of ids [N] without a prompt, by the solver of inference; `streaming` as
    the estimator has it.
    """

    def velocity(
        x: Floats, mask: Floats, mu: Floats, t: Floats, speaker: Floats, cond: Floats
    ) -> Floats:
        inputs = [torch.from_numpy(array) for array in (x, mask, mu, t, speaker, cond)]
        made: Floats = network.estimator(*inputs, streaming=streaming).numpy()
        return made

    mu = network.encoder(ids[None])[0].numpy()
    speaker = network.encoder.speaker(speaker_embedding[None])[0].numpy()
    preset = SolverPreset(
        method="euler",
        steps=COSYVOICE3.solver_steps,
        grid=[float(t) for t in time_grid(COSYVOICE3.solver_steps)],
        guidance_rate=FLOW.inference_cfg_rate,
        guidance_range=(0.0, 1.0),
    )
    return solve(velocity, noise, mu, np.zeros_like(mu), speaker, preset=preset)


@dataclass(frozen=True)
class Stretch:
    """Parts of utterances of one speaker: (utterance, first token, end)."""

    speaker: str
    parts: list[tuple[int, int, int]]


@dataclass(frozen=True)
class Batch:
    """Ids [B, N], log-mel [B, 80, 2 N], speaker embeddings [B, 192], frames of prompt [B], and
    where they come from.
    """

    ids: Tensor
    mel: Tensor
    embedding: Tensor
    prompt: Tensor
    streaming: bool
    stretches: Sequence[Stretch] = ()


@dataclass(frozen=True)
class Prediction:
    """Velocity and what it should be, the mel it leads to in one step [B, 80, T], and the frames
    [B, T] that are made from conditions: neither prompt nor of a row whose conditions are left out.
    """

    velocity: Tensor
    wanted: Tensor
    mel: Tensor
    told: Tensor

    def error(self) -> Tensor:
        """Mean squared error of the velocity."""
        return F.mse_loss(self.velocity, self.wanted)


class FlowTask:
    """Trains a `Flow` on mel and token ids of the corpus."""

    def __init__(
        self,
        corpus: TokenCorpus,
        heldout: TokenCorpus,
        table: IdTable,
        embeddings: dict[str, NDArray[np.float32]],
    ) -> None:
        """`embeddings` holds a unit speaker embedding [192] for every speaker of the corpus."""
        self.network = Flow()
        self._corpus, self._heldout, self._embeddings = corpus, heldout, embeddings
        self._chance = corpus.corpus.chances()
        self._of_speaker = {
            str(speaker): np.flatnonzero(corpus.corpus.speakers == speaker)
            for speaker in np.unique(corpus.corpus.speakers)
        }
        some = np.concatenate([corpus.corpus[i].mel for i in range(min(200, len(corpus)))])
        torch.manual_seed(0)
        initialize(self.network, table, some.astype(np.float32).mean(0))

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        return [{"params": list(self.network.parameters())}]

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        tokens, rows, _ = STRETCHES[int(rng.choice(len(STRETCHES), p=[s for _, _, s in STRETCHES]))]
        batch = self._batch([self._stretch(rng, tokens) for _ in range(rows)], rng)
        return self._losses_of(batch, self._predict(batch))

    def _losses_of(self, batch: Batch, prediction: Prediction) -> dict[str, Tensor]:
        return {"total": prediction.error()}

    def _stretch(self, rng: np.random.Generator, tokens: int) -> Stretch:
        """`tokens` tokens out of utterances of one speaker, one behind the other."""
        number = int(rng.choice(len(self._corpus), p=self._chance))
        speaker = str(self._corpus.corpus.speakers[number])
        parts: list[tuple[int, int, int]] = []
        have = 0
        while have < tokens:
            length = int(self._corpus.tokens[number])
            start = int(rng.integers(max(1, length - tokens + 1))) if not parts else 0
            end = min(length, start + tokens - have)
            parts.append((number, start, end))
            have += end - start
            number = int(rng.choice(self._of_speaker[speaker]))
        return Stretch(speaker, parts)

    def _ids(self, number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """The ids [N] that the flow is given for an utterance."""
        return self._corpus.ids(number)

    def _batch(self, stretches: Sequence[Stretch], rng: np.random.Generator) -> Batch:
        ids, mels, embeddings, prompt = [], [], [], []
        for stretch in stretches:
            ids.append(np.concatenate([self._ids(n, rng)[a:b] for n, a, b in stretch.parts]))
            mel = [self._corpus.corpus[n].mel[2 * a : 2 * b] for n, a, b in stretch.parts]
            mels.append(np.concatenate(mel).astype(np.float32).T)
            jitter = rng.standard_normal(192) * EMBEDDING_JITTER / math.sqrt(192)
            embeddings.append((self._embeddings[stretch.speaker] + jitter).astype(np.float32))
            longest = PROMPT_SHARE * mels[-1].shape[1]
            prompt.append(int(rng.random() * longest) if rng.random() < 0.5 else 0)
        return Batch(
            torch.from_numpy(np.stack(ids)),
            torch.from_numpy(np.stack(mels)),
            torch.from_numpy(np.stack(embeddings)),
            torch.tensor(prompt),
            streaming=bool(rng.random() < 0.5),
            stretches=stretches,
        )

    def _predict(self, batch: Batch) -> Prediction:
        mel, rows = batch.mel, len(batch.ids)
        mu = self.network.encoder(batch.ids)
        speaker = self.network.encoder.speaker(batch.embedding)
        inside = torch.arange(mel.shape[2])[None] < batch.prompt[:, None]
        cond = mel * inside[:, None]
        keep = torch.rand(rows) > GUIDANCE_DROPOUT
        time = cosine_time(torch.rand(rows))
        noise = torch.randn_like(mel)
        at = time[:, None, None]
        x = (1 - (1 - SIGMA_MIN) * at) * noise + at * mel
        velocity = self.network.estimator(
            x,
            torch.ones(rows, 1, mel.shape[2]),
            mu * keep[:, None, None],
            time,
            speaker * keep[:, None],
            cond * keep[:, None, None],
            streaming=batch.streaming,
        ).float()
        return Prediction(
            velocity=velocity,
            wanted=mel - (1 - SIGMA_MIN) * noise,
            mel=x + (1 - at) * velocity,
            told=~inside & keep[:, None],
        )

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Velocity error over held-out texts (fixed draws); sampled mels beside the originals."""
        torch.manual_seed(1)
        rng = np.random.default_rng(1)
        errors, differences, spreads, originals = [], [], [], []
        for number in range(min(32, len(self._heldout))):
            utterance = self._heldout.corpus[number]
            ids = torch.from_numpy(self._heldout.ids(number))
            mel = torch.from_numpy(utterance.mel.astype(np.float32).T)
            embedding = torch.from_numpy(self._embeddings[utterance.speaker])
            prompt = torch.tensor([int(rng.random() * 0.3 * mel.shape[1]) if number % 2 else 0])
            batch = Batch(ids[None], mel[None], embedding[None], prompt, streaming=False)
            errors.append(float(self._predict(batch).error()))
            if number < 4:
                noise = torch.randn_like(mel).numpy()
                made = torch.from_numpy(sample_mel(self.network, ids, embedding, noise))
                differences.append(float((made - mel).abs().mean()))
                spreads.append(float(made.std()))
                originals.append(float(mel.std()))
        return {
            "velocity_mse": float(np.mean(errors)),
            "mel_l1": float(np.mean(differences)),
            "spread": float(np.mean(spreads)),
            "spread_original": float(np.mean(originals)),
        }
