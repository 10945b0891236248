"""Altered graphs of a bundle, run without writing them anywhere: weights stay in its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx

from cosyvoice_cpu.runtime.onnxruntime_engine import open_session


def open_model(model: onnx.ModelProto, folder: Path, threads: int, *, prepack: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on `model`, whose external weights lie in `folder`.

    Raises: BundleError if the engine refuses it.
    """
    return open_session(model.SerializeToString(), threads, prepack=prepack, weights_folder=folder)
