"""How every network of the recipe is trained."""

from __future__ import annotations

from training.trainer import Settings

SETTINGS: dict[str, Settings] = {
    "speaker_encoder": Settings(steps=1500, peak_rate=1e-3, weight_decay=0.05, average=0.995),
    "speech_tokenizer": Settings(
        steps=2400,
        peak_rate=1e-3,
        warmup=200,
        betas=(0.9, 0.98),
        average=0.998,
        bfloat16=True,
        evaluate_every=400,
    ),
    "vocoder": Settings(
        steps=7000, peak_rate=5e-4, betas=(0.8, 0.99), average=0.999, evaluate_every=500
    ),
    "vocoder_tuning": Settings(
        steps=1600, peak_rate=2e-4, betas=(0.8, 0.99), average=0.995, evaluate_every=400
    ),
    "vocoder_adversarial": Settings(
        steps=9000,
        peak_rate=2e-4,
        warmup=50,
        floor=0.02,
        betas=(0.8, 0.99),
        clip=50.0,  # norms are some hundreds, so the direction counts and Adam gives the length
        average=0.995,
        evaluate_every=400,
    ),
    "f0": Settings(steps=18000, peak_rate=1e-3, warmup=50, floor=0.03, weight_decay=0.0),
    "flow": Settings(
        steps=16500,
        peak_rate=1.5e-3,
        average=0.999,
        bfloat16=True,
        evaluate_every=500,
    ),
    "mel_recogniser": Settings(
        steps=3000,
        peak_rate=1e-3,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        average=0.99,
        bfloat16=True,
    ),
    "flow_tuning": Settings(
        steps=3000, peak_rate=5e-4, average=0.995, bfloat16=True, evaluate_every=500
    ),
    "speech_lm": Settings(
        steps=19500,
        peak_rate=1.5e-3,
        warmup=200,
        betas=(0.9, 0.98),
        weight_decay=0.05,
        average=0.999,
        bfloat16=True,
        evaluate_every=500,
    ),
}
