"""Altered graphs of a bundle, run without writing them anywhere: weights stay in its own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from cosyvoice_cpu.errors import BundleError

_ERROR_LEVEL = 3
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def open_model(model: onnx.ModelProto, folder: Path, threads: int, *, prepack: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on `model`, whose external weights lie in `folder`.

    Raises: BundleError if the engine refuses it.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_LEVEL
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise BundleError(
            f"the graphs of {folder} can't be loaded by ONNX Runtime {ort.__version__}: "
            f"{str(error).splitlines()[0][:300]}",
            "update onnxruntime, or export the checkpoint again",
        ) from error
