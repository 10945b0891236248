"""What a bundle's prompts are made by and have to fit: the facts that its speakers depend on."""

from __future__ import annotations

from dataclasses import dataclass

from cosyvoice_cpu.bundle.manifest import Audio, ComponentName, Manifest, MelSettings


@dataclass(frozen=True)
class PromptSpec:
    """Of one bundle; speakers of a bundle with the same facts can be used with it."""

    generation: str
    speech_vocabulary: int  # ids 0 .. speech_vocabulary - 1 are speech
    audio: Audio  # the rates that tie speech tokens and mel frames together
    mel: MelSettings  # of the flow's prompt
    embedding_size: int
    speaker_encoder_sha256: str = ""  # "": not in the bundle, not compared
    speech_tokenizer_sha256: str = ""


def prompt_spec(manifest: Manifest) -> PromptSpec:
    """The facts of the bundle with this manifest."""
    return PromptSpec(
        generation=manifest.generation,
        speech_vocabulary=manifest.synthesis.speech_vocabulary,
        audio=manifest.audio,
        mel=manifest.synthesis.mel,
        embedding_size=manifest.synthesis.speaker_embedding_size,
        speaker_encoder_sha256=_graph_digest(manifest, "speaker_encoder"),
        speech_tokenizer_sha256=_graph_digest(manifest, "speech_tokenizer"),
    )


def _graph_digest(manifest: Manifest, component: ComponentName) -> str:
    """SHA-256 of a front-end model's file; "" if the bundle has none."""
    if component not in manifest.components:
        return ""
    path = f"{component}/{component}.onnx"
    files = manifest.components[component].files
    return next((entry.sha256 for entry in files if entry.path == path), "")
