"""Drawing a speech token from logits: nucleus sampling with a guard against repetition.

Source: CosyVoice cosyvoice/utils/common.py (nucleus_sampling, ras_sampling, random_sampling). The
distribution is the original's; the draws are not, because torch takes its exponentials from a
vendor library. All probabilities are float64, so a token's fate does not hang on summation order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.manifest import Sampling
from cosyvoice_cpu.errors import SynthesisError, UsageError

Sampler = Callable[[Floats, Sequence[int], np.random.Generator], int]
"""(logits [rows], ids drawn so far, generator) -> id; -inf marks an id that must not be drawn."""

SAMPLERS = ("ras", "greedy")


def sampler_named(name: str, settings: Sampling) -> Sampler:
    """The sampler called "ras" or "greedy". Raises: UsageError for another name."""
    if name == "greedy":
        return greedy
    if name == "ras":
        return lambda logits, history, rng: repetition_aware(logits, history, rng, settings)
    raise UsageError(f"unknown sampler {name!r}", f"samplers: {', '.join(SAMPLERS)}")


def generator_for(seed: int) -> np.random.Generator:
    """The generator every utterance's draws come from: the same on every machine and version."""
    return np.random.Generator(np.random.PCG64(seed))


def greedy(logits: Floats, history: Sequence[int], rng: np.random.Generator) -> int:
    """The most probable id; the lowest one of a tie. `history` and `rng` are not used."""
    _require_choice(logits)
    return int(np.argmax(logits))


def repetition_aware(
    logits: Floats,
    history: Sequence[int],
    rng: np.random.Generator,
    settings: Sampling,
) -> int:
    """Draw from the nucleus; redraw from all other ids if the id occurred recently.

    logits [rows], unnormalized. `history` holds this utterance's ids, oldest first. The redraw has
    no nucleus and is not checked again, as in the original. Raises: SynthesisError if no logit is
    finite.
    """
    ids, probabilities = nucleus(logits, settings.top_p, settings.top_k)
    drawn = int(ids[_draw(probabilities, rng)])
    recent = history[-settings.win_size :]
    if recent.count(drawn) < settings.win_size * settings.tau_r:
        return drawn
    others = logits.astype(np.float64)
    others[drawn] = -np.inf
    if not np.isfinite(others.max()):
        return drawn  # the only id that is allowed at all
    return _draw(np.exp(others - others.max()), rng)


def nucleus(
    logits: Floats, top_p: float, top_k: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The most probable ids, best first, and their softmax probabilities over all ids.

    logits [rows] -> ids [k], probabilities [k] (not renormalized). Ids are taken while the sum of
    those before is below `top_p` and fewer than `top_k` are taken: the id that crosses `top_p` is
    in. Of equal logits the lower id comes first. Raises: SynthesisError if no logit is finite.
    """
    _require_choice(logits)
    scores = logits.astype(np.float64)
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    if top_k < len(weights):  # a full sort of 6761 rows would cost more than all the rest
        threshold = np.partition(scores, -top_k)[-top_k]
        candidates = np.flatnonzero(scores >= threshold)
    else:
        candidates = np.arange(len(weights))
    order = candidates[np.argsort(-scores[candidates], kind="stable")][:top_k]
    kept = weights[order]
    sum_before = np.concatenate(([0.0], np.cumsum(kept)[:-1]))
    count = max(1, int(np.searchsorted(sum_before, top_p, side="left")))
    return order[:count], kept[:count]


def _draw(weights: NDArray[np.float64], rng: np.random.Generator) -> int:
    """An index drawn in proportion to `weights`; one of weight 0 is never drawn."""
    cumulative = np.cumsum(weights)
    cumulative /= cumulative[-1]
    return int(np.searchsorted(cumulative, rng.random(), side="right"))


def _require_choice(logits: Floats) -> None:
    best = logits.max()
    if not np.isfinite(best):  # NaN, +inf, or every id banned
        raise SynthesisError(
            f"the speech LM's logits are unusable (largest value {best})",
            "check the bundle with `cosyvoice-cpu verify`; its weights may be damaged",
        )
