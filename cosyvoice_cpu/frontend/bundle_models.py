"""The parts of a bundle that the front end reads: text tokenizer, speaker encoder, tokenizer."""

from __future__ import annotations

from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.frontend.onnx_models import FrontEndModels
from cosyvoice_cpu.frontend.tokenizer import TextTokenizer


def text_tokenizer(bundle: Bundle) -> TextTokenizer | None:
    """The text tokenizer, None for a bundle without front end."""
    if "text_tokenizer" not in bundle.manifest.components:
        return None
    with bundle.unchanged("text_tokenizer"):
        return TextTokenizer.load(
            bundle.path / "text_tokenizer", bundle.manifest.generation, in_bundle=True
        )


def front_end_models(bundle: Bundle) -> FrontEndModels:
    """Speaker encoder and speech tokenizer. Raises: BundleError for a bundle without them."""
    missing = {"speaker_encoder", "speech_tokenizer"} - bundle.manifest.components.keys()
    if missing:
        raise BundleError(
            f"{bundle.path} has no {' and no '.join(sorted(missing))}",
            "export the checkpoint without --no-front-end, or use a ready speaker file",
        )
    with bundle.unchanged("speaker_encoder"), bundle.unchanged("speech_tokenizer"):
        return FrontEndModels(
            bundle.file("speaker_encoder", "speaker_encoder.onnx"),
            bundle.file("speech_tokenizer", "speech_tokenizer.onnx"),
        )
