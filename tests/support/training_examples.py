"""A corpus in the real format without the speech generator, and whether a network learns."""

from __future__ import annotations

import json

import numpy as np
import torch

from training import corpus as corpus_module

TOKENS = (60, 45, 30)  # of the three texts of every shard


def write_shard(path, seed):
    """Harmonic tones with pauses: a corpus in the real format without the speech generator."""
    rng = np.random.default_rng(seed)
    arrays, index = {n: [] for n in ("audio", "mel", "log_mel", "f0", "phase", "units")}, []
    for tokens in TOKENS:
        frames = 2 * tokens
        f0 = np.where(np.arange(frames) % 40 < 30, rng.uniform(120, 220), 0.0)
        phase = np.cumsum(np.maximum(np.repeat(f0, 480), 40)) / 24000
        tone = sum(np.sin(2 * np.pi * h * phase) / h for h in (1, 2, 3))
        audio = 0.2 * tone * np.repeat(f0 > 0, 480) + 1e-3 * rng.standard_normal(frames * 480)
        units = np.where(np.arange(int(tokens * 1.6)) % 16 < 12, 83, 3)
        x = audio.astype(np.float32)
        arrays["audio"].append((x * 32767).astype(np.int16))
        arrays["mel"].append(corpus_module.mel_spectrogram(x).astype(np.float16))
        log_mel = corpus_module.whisper_log_mel(corpus_module.resample(x, 24000, 16000))
        arrays["log_mel"].append(log_mel.T.astype(np.float16))
        arrays["f0"].append(f0.astype(np.float32))
        arrays["phase"].append((phase[479::480] % 1).astype(np.float32))
        arrays["units"].append(units.astype(np.uint8))
        index.append(
            {
                "text": "A tone.",
                "speaker": "tone",
                "tokens": tokens,
                "units": len(units),
                "phonemes": [0],
            }
        )
    path.mkdir(parents=True)
    for name, parts in arrays.items():
        np.save(path / f"{name}.npy", np.concatenate(parts))
    (path / "index.json").write_text(json.dumps(index))


def falls(task, steps=12, rate=1e-3):
    """Whether the loss of one batch, drawn alike each time, is lower after `steps`."""
    optimizer = torch.optim.AdamW(task.network.parameters(), rate)
    values = []
    for _ in range(steps):
        torch.manual_seed(0)
        loss = task.losses(np.random.default_rng(0), 0)["total"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(float(loss.detach()))
    return values[-1] < values[0]
