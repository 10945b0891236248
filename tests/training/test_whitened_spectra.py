"""Complex spectra in which every band counts alike."""

from __future__ import annotations

import torch

from training.whitened_spectra import agreement, voiced_frames, whitened_loss, whitened_spectra

FRAMES = 40
TIME = torch.arange(FRAMES * 480) / 24000
F0 = torch.full((1, FRAMES), 200.0)


def _voice(phase: float = 0.0, orders: int = 20) -> torch.Tensor:
    """Harmonics of 200 Hz that fall by 12 dB per octave."""
    tones = [torch.cos(2 * torch.pi * 200 * k * TIME + phase) / k**2 for k in range(1, orders)]
    return sum(tones)[None]


def test_the_loss_is_zero_for_the_recording_and_about_one_for_silence():
    voice = _voice()
    assert float(whitened_loss(voice, voice, F0)) == 0.0
    assert 0.5 < float(whitened_loss(0 * voice, voice, F0)) < 1.5
    assert float(whitened_loss(-voice, voice, F0)) > 1.0


def test_soft_high_harmonics_count_like_loud_low_ones():
    voice, low = _voice(), _voice(orders=5)
    mine, real = whitened_spectra(low, voice)
    missing = (mine - real).abs().mean(2)[0]
    assert float(missing[60:140].mean()) > 5 * float(missing[:25].mean())


def test_frames_without_a_voice_carry_no_loss():
    voice, f0 = _voice(), F0.clone()
    f0[:, FRAMES // 2 :] = 0.0
    wrong = voice.clone()
    wrong[:, 480 * (FRAMES // 2 + 2) :] *= -1
    assert float(whitened_loss(wrong, voice, f0)) == 0.0
    assert voiced_frames(f0, 70)[0, 0, :30].min() == 1.0


def test_agreement_is_that_of_phases_in_a_band():
    voice, f0 = _voice()[0], F0[0]
    turned = _voice(torch.pi / 2)[0]
    mixed = _voice(orders=8)[0] - (_voice()[0] - _voice(orders=8)[0])
    assert agreement([(voice, voice, f0)], 0, 4000) > 0.99
    assert abs(agreement([(turned, voice, f0)], 300, 4000)) < 0.1
    assert agreement([(mixed, voice, f0)], 300, 1000) > 0.9
    assert agreement([(mixed, voice, f0)], 2000, 3000) < -0.9
