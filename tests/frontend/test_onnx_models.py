"""The two ONNX models of the front end: what is refused of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.front_end_graphs import (
    FLOAT,
    INT64,
    save_counting_tokenizer,
    save_mean_encoder,
)

from cosyvoice_cpu.errors import SpeakerError
from cosyvoice_cpu.frontend.prepare import (
    FrontEndModels,
)


def test_models_with_another_signature_are_refused_by_name(tmp_path: Path) -> None:
    encoder = save_mean_encoder(tmp_path / "encoder.onnx")
    tokenizer = save_counting_tokenizer(tmp_path / "tokenizer.onnx")
    wrong = tmp_path / "wrong.onnx"

    def refused(message: str, *paths: Path) -> None:
        with pytest.raises(SpeakerError, match=message) as caught:
            FrontEndModels(*paths)
        assert caught.value.what.startswith(str(wrong))

    refused("has 1 inputs; expected 2", encoder, save_mean_encoder(wrong))
    refused("has 2 inputs; expected 1", save_counting_tokenizer(wrong), tokenizer)
    refused("expected float of rank 3 with 80 at", save_mean_encoder(wrong, bins=64), tokenizer)
    refused("with 128 at axis 1", encoder, save_counting_tokenizer(wrong, bins=80))
    refused("expected int32 of rank 1", encoder, save_counting_tokenizer(wrong, length_type=INT64))
    refused("expected int32 or int64", encoder, save_counting_tokenizer(wrong, id_type=FLOAT))
    wrong.write_bytes(b"not a model")
    refused("is no ONNX model", encoder, wrong)
    wrong.unlink()
    refused("can't be loaded", wrong, tokenizer)
