"""Every exported component against its torch network, before the bundle appears.

Graphs of one ladder are one graph and differ in declared sizes alone, so the numbers are taken at
the bottom, the middle and the top of the ladder, each with padding. Error = max |a - b| / max |b|
over an array.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import ParityError
from cosyvoice_cpu.generations.components import ComponentSpec
from cosyvoice_cpu.networks.reference.flow_encoder import FlowEncoder
from cosyvoice_cpu.networks.reference.flow_estimator import FlowEstimator
from cosyvoice_cpu.networks.reference.speech_lm import KVCache, SpeechLM
from cosyvoice_cpu.networks.reference.vocoder import Vocoder
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session

# What float32 rounding may cost (design, Tolerances); stored halves are 11 bits.
FLOAT32_LIMITS = {
    "logits": 1e-4,
    "cached_logits": 1e-4,
    "mu": 1e-4,
    "speaker": 1e-4,
    "velocity_full": 1e-4,
    "velocity_chunked": 1e-4,
    "velocity_stream": 5e-4,  # keys and values are kept half
    "f0": 1e-4,
    "source": 2e-3,
    "waveform": 2e-3,
}
FLOAT16_LIMITS = {name: max(50 * limit, 1e-2) for name, limit in FLOAT32_LIMITS.items()}
_PADDING = 7  # frames of padding in every check of a static graph


def relative_error(got: NDArray[np.generic], want: NDArray[np.generic]) -> float:
    """max |got - want| / max |want|; infinite if shapes differ or a value is not finite."""
    if got.shape != want.shape or not np.isfinite(got).all():
        return float("inf")
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64)).max()
    return float(difference / max(np.abs(want).max(), 1e-12))


def require_parity(
    component: str, errors: Mapping[str, float], limits: Mapping[str, float]
) -> None:
    """Raises: ParityError naming the worst measure that is over its limit."""
    for name, error in errors.items():
        if not error <= limits[name]:
            raise ParityError(
                f"{component}: {name} of the exported graph differs from torch by {error:.1e}, "
                f"allowed is {limits[name]:.0e}",
                "no bundle was written; report this with your versions of torch and onnxruntime",
            )


def probe_sizes(sizes: Collection[int | None]) -> list[int | None]:
    """Bottom, middle and top of a ladder; None for the graph of any length."""
    ascending = list(sizes)
    places = {0, len(ascending) // 2, len(ascending) - 1}
    return [ascending[place] for place in sorted(places)]


@torch.inference_mode()
def speech_lm_errors(
    network: SpeechLM, config: CheckpointConfig, path: Path, threads: int
) -> dict[str, float]:
    """Prefill of 24 rows in one call, then 4 more one by one through the KV cache."""
    rng = np.random.default_rng(0)
    table = network.speech_embedding.weight
    rows = table[torch.from_numpy(rng.integers(0, table.shape[0], 28))][None]  # [1, 28, hidden]
    cache = KVCache(config.speech_lm)
    want = [network.logits(network(rows[:, :24], cache))[0].numpy()]
    for i in range(24, 28):
        want.append(network.logits(network(rows[:, i : i + 1], cache))[0].numpy())

    session = open_session(path, threads, prepack=False)
    lm = config.speech_lm
    empty = np.zeros((1, lm.num_kv_heads, 32, lm.head_dim), np.float32)
    past = {f"past_{part}_{i}": empty for i in range(lm.num_layers) for part in ("key", "value")}
    names = [output.name for output in session.get_outputs()]

    def run(start: int, end: int) -> Floats:
        feed = past | {
            "inputs_embeds": rows[:, start:end].numpy(),
            "rows": np.arange(end - start),
            "last_position": np.array([end - 1], np.int32),
            "total_length": np.array([end], np.int32),
        }
        values = dict(zip(names, session.run(None, feed), strict=True))
        logits: Floats = values.pop("logits")
        past.update({name.replace("present", "past"): value for name, value in values.items()})
        return logits

    got = [run(0, 24), *(run(i, i + 1) for i in range(24, 28))]
    return {
        "logits": relative_error(got[0], want[0]),
        "cached_logits": relative_error(np.concatenate(got[1:]), np.concatenate(want[1:])),
    }


@torch.inference_mode()
def flow_encoder_errors(
    network: FlowEncoder, config: CheckpointConfig, path: Path, threads: int
) -> dict[str, float]:
    """30 tokens with their end, and the same without."""
    rng = np.random.default_rng(0)
    flow = config.flow
    tokens = rng.integers(0, flow.vocab_size, 30)
    embedding = rng.standard_normal((1, flow.spk_embed_dim)).astype(np.float32)
    ahead = flow.pre_lookahead_len
    session = open_session(path, threads, prepack=False)

    def run(ids: NDArray[np.int64], known: Floats) -> tuple[Floats, Floats]:
        feed = {"tokens": ids, "known": known, "embedding": embedding}
        mu, speaker = session.run(["mu", "speaker"], feed)
        return mu, speaker

    known = np.ones(30, np.float32)
    closed, speaker = run(np.pad(tokens, (0, ahead)), np.pad(known, (0, ahead)))
    opened, _ = run(tokens, known)
    ids = torch.from_numpy(tokens)[None]
    return {
        "mu": max(
            relative_error(closed, network(ids)[0].numpy()),
            relative_error(opened, network(ids, finalize=False)[0].numpy()),
        ),
        "speaker": relative_error(speaker, network.speaker(torch.from_numpy(embedding)).numpy()),
    }


@torch.inference_mode()
def flow_estimator_errors(
    network: FlowEstimator,
    config: CheckpointConfig,
    graphs: Sequence[tuple[Path, int | None, bool]],
    times: Floats,
    threads: int,
    progress: Share,
) -> dict[str, float]:
    """Worst velocity error over `graphs` (file, size, chunked), at a different time for each.

    On two rows and on one in turn.
    """
    rng = np.random.default_rng(0)
    worst: dict[str, float] = {}
    estimator = config.flow.estimator
    for count, (path, size, chunked) in enumerate(graphs):
        frames = (size or 3 * estimator.static_chunk_size + 1) - (_PADDING if size else 0)
        rows = 2 - count % 2  # with guidance and without
        shape = (rows, estimator.mel_dim, frames)
        x, mu, cond = (rng.standard_normal(shape).astype(np.float32) for _ in range(3))
        speaker = rng.standard_normal((rows, estimator.spk_dim)).astype(np.float32)
        step = (3 * count + 1) % len(times)
        want = network(
            torch.from_numpy(x),
            torch.ones(rows, 1, frames),
            torch.from_numpy(mu),
            torch.full((rows,), float(times[step])),
            torch.from_numpy(speaker),
            torch.from_numpy(cond),
            streaming=chunked,
        ).numpy()
        padding = ((0, 0), (0, 0), (0, (size or frames) - frames))
        feed = {
            # Padding of large numbers: what it holds must not matter.
            **{
                name: np.pad(array, padding, constant_values=9)
                for name, array in (("x", x), ("mu", mu), ("cond", cond))
            },
            "speaker": speaker,
            "step": np.array(step),
            "valid_frames": np.array([frames]),
        }
        session = open_session(path, threads, prepack=False)
        got = session.run(["velocity"], feed)[0][:, :, :frames]
        name = "velocity_chunked" if chunked else "velocity_full"
        worst[name] = max(worst.get(name, 0.0), relative_error(got, want))
        progress((count + 1) / len(graphs))
    return worst


@torch.inference_mode()
def flow_stream_errors(
    network: FlowEstimator,
    config: CheckpointConfig,
    spec: ComponentSpec,
    path: Path,
    times: Floats,
    positions: int,
    threads: int,
) -> dict[str, float]:
    """Chunks against all of them at once: the first as the prompt, a second, a third not whole.

    As far as the graph's `positions` (frames) reach.
    """
    rng = np.random.default_rng(0)
    estimator, graph = config.flow.estimator, spec.graph("stream")
    chunk = estimator.static_chunk_size
    frames = min(2 * chunk + _PADDING, positions)
    mels = [rng.standard_normal((2, estimator.mel_dim, frames)).astype(np.float32) for _ in "xmc"]
    speaker = rng.standard_normal((2, estimator.spk_dim)).astype(np.float32)
    step = len(times) // 2
    x, mu, cond = map(torch.from_numpy, mels)
    want = network(
        *(x, torch.ones(2, 1, frames), mu, torch.full((2,), float(times[step]))),
        *(torch.from_numpy(speaker), cond),
        streaming=True,
    ).numpy()
    session = open_session(path, threads, prepack=False)
    inputs, outputs = spec.tensors(graph, estimator)
    known = {**spec.numbers(estimator), "rows": 2, "prompt_frames": 0, "recent_frames": 0}
    state = {
        entry.name: np.zeros([int(size) for size in entry.resolved(known)], entry.dtype)
        for entry in inputs[inputs.index(graph.inputs[-1]) :]
    }
    pieces = []
    for position in range(0, frames, chunk):
        parts = [mel[:, :, position : position + chunk] for mel in mels]
        feed = graph.feed(*parts, speaker, step, [position], state["history"])
        velocity, state["history"], *present = session.run(
            [entry.name for entry in outputs], {**state, **feed}
        )
        pieces.append(velocity)
        place = "recent" if position else "prompt"
        for entry, value in zip(outputs[2:], present, strict=True):
            state[f"{place}_{entry.name}"] = value
    return {"velocity_stream": relative_error(np.concatenate(pieces, axis=2), want)}


@torch.inference_mode()
def vocoder_errors(
    network: Vocoder,
    config: CheckpointConfig,
    folder: Path,
    graphs: Sequence[tuple[Path, int | None]],
    threads: int,
    progress: Share,
) -> dict[str, float]:
    """f0, excitation and waveform; the waveform from the reference's source, so apart from f0."""
    rng = np.random.default_rng(0)
    vocoder = config.vocoder
    samples, ahead = vocoder.samples_per_frame, vocoder.conv_pre_look_right
    errors = {"f0": 0.0, "source": 0.0, "waveform": 0.0}
    f0_session: Any = open_session(folder / "f0_predictor.onnx", threads, prepack=False)
    source_session: Any = open_session(folder / "excitation.onnx", threads, prepack=False)

    def note(name: str, got: Floats, want: Floats) -> None:
        errors[name] = max(errors[name], relative_error(got, want))

    for count, (path, size) in enumerate(graphs):
        frames = (size or 64) - (_PADDING if size else 0)
        mel = (rng.standard_normal((vocoder.in_channels, frames)) * 2 - 6).astype(np.float32)
        noise = rng.random((frames * samples, vocoder.nb_harmonics + 1), dtype=np.float32)
        f0 = network.f0_predictor(torch.from_numpy(mel)[None]).float()
        source = network.m_source(f0, torch.from_numpy(noise))
        want = network(torch.from_numpy(mel)[None], source)[0].numpy()
        note("f0", f0_session.run(["f0"], {"mel": np.pad(mel, ((0, 0), (0, 3)))})[0], f0[0].numpy())
        turns = np.zeros((1, vocoder.nb_harmonics + 1))
        pieces = {"f0": f0[0].numpy(), "noise": noise, "turns": turns}
        got = source_session.run(["source"], pieces)[0]
        note("source", got, source[0].numpy())
        padding = (size or frames) - frames
        feed = {
            "mel": np.pad(mel, ((0, 0), (0, padding + ahead)))[None],
            "source": np.pad(source[0].numpy(), ((0, 0), (0, padding * samples))),
            "valid_frames": np.array([frames]),
        }
        session = open_session(path, threads, prepack=False)
        note("waveform", session.run(["waveform"], feed)[0][0, : frames * samples], want)
        progress((count + 1) / len(graphs))
    return errors
