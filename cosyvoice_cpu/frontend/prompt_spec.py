"""What the front end must know of a bundle to make and to accept its speakers."""

from __future__ import annotations

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest
from cosyvoice_cpu.frontend.prepare import MelSettings
from cosyvoice_cpu.frontend.speakers import VoiceModel


def voice_model(manifest: Manifest) -> VoiceModel:
    """What a speaker must fit to speak with this bundle."""
    return VoiceModel(
        generation=manifest.generation,
        speech_vocabulary=manifest.synthesis.speech_vocabulary,
        speaker_encoder_sha256=_graph_digest(manifest, "speaker_encoder"),
        speech_tokenizer_sha256=_graph_digest(manifest, "speech_tokenizer"),
        mel_bins=manifest.synthesis.mel.num_mels,
        frames_per_token=round(manifest.audio.mel_frames_per_token),
        embedding_size=manifest.synthesis.speaker_embedding_size,
    )


def mel_settings(manifest: Manifest) -> MelSettings:
    """How the flow's prompt mel is computed for this bundle."""
    mel = manifest.synthesis.mel
    return MelSettings(
        sample_rate=manifest.audio.sample_rate,
        n_fft=mel.n_fft,
        hop=mel.hop,
        win=mel.win,
        bins=mel.num_mels,
        fmin=mel.fmin,
        fmax=mel.fmax,
    )


def _graph_digest(manifest: Manifest, component: ComponentName) -> str:
    """sha256 of a front-end model's file; "" if the bundle has none."""
    if component not in manifest.components:
        return ""
    path = f"{component}/{component}.onnx"
    files = manifest.components[component].files
    return next((entry.sha256 for entry in files if entry.path == path), "")
