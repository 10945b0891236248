"""The two ONNX models that look at a prompt clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.onnx_operators import ForeignGraphError, require_plain_graph
from cosyvoice_cpu.errors import SpeakerError, first_line
from cosyvoice_cpu.frontend.fbank import BINS
from cosyvoice_cpu.frontend.mel import WHISPER_BINS
from cosyvoice_cpu.frontend.speakers import Ints

_HINT = "export the official checkpoint again; its ONNX models may be damaged or of another version"


class FrontEndModels:
    """The speaker encoder (CAM++) and the speech tokenizer, each on one thread.

    Inputs are fed by position; names differ between exports.
    Raises: SpeakerError naming the file if a model can't be loaded or has other inputs or outputs.
    Source: CosyVoice cosyvoice/cli/frontend.py, `CosyVoiceFrontEnd`.
    """

    def __init__(self, speaker_encoder: Path, speech_tokenizer: Path) -> None:
        self._encoder_path, self._tokenizer_path = speaker_encoder, speech_tokenizer
        self._encoder = _open(speaker_encoder)
        self._tokenizer = _open(speech_tokenizer)
        _require(
            speaker_encoder,
            self._encoder,
            inputs=(("float", 3, {2: BINS}),),
            outputs=({"float"}, {1, 2, 3}),
        )
        _require(
            speech_tokenizer,
            self._tokenizer,
            inputs=(("float", 3, {1: WHISPER_BINS}), ("int32", 1, {})),
            outputs=({"int32", "int64"}, {1, 2, 3}),
        )

    def embed(self, fbank: Floats) -> Floats:
        """Speaker embedding [E], not normalized, of a filter bank [T, 80]. Raises: SpeakerError."""
        value = np.asarray(self._run(self._encoder_path, self._encoder, fbank[None])).reshape(-1)
        if not np.all(np.isfinite(value)):
            raise SpeakerError(f"{self._encoder_path} gave values that are not finite", _HINT)
        return value.astype(np.float32)

    def tokenize(self, log_mel: Floats) -> Ints:
        """Speech tokens [N] of a whisper log-mel [128, T]. Raises: SpeakerError."""
        length = np.array([log_mel.shape[1]], np.int32)
        ids = self._run(self._tokenizer_path, self._tokenizer, log_mel[None], length)
        return np.asarray(ids).reshape(-1).astype(np.int32)

    @staticmethod
    def _run(path: Path, session: Any, *values: NDArray[Any]) -> NDArray[Any]:
        names = [node.name for node in session.get_inputs()]
        first = session.get_outputs()[0].name
        try:
            result: NDArray[Any] = session.run([first], dict(zip(names, values, strict=True)))[0]
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise SpeakerError(f"{path} fails on this clip ({first_line(error)})", _HINT) from error
        return result


def _open(path: Path) -> Any:
    try:
        require_plain_graph(path)
    except ForeignGraphError as error:
        raise SpeakerError(f"{path} {error}", _HINT) from None
    except OSError as error:
        raise SpeakerError(f"{path} can't be loaded ({error.strerror})", _HINT) from None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors only
    try:
        return onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise SpeakerError(f"{path} can't be loaded ({first_line(error)})", _HINT) from error


def _require(
    path: Path,
    session: Any,
    inputs: tuple[tuple[str, int, dict[int, int]], ...],
    outputs: tuple[set[str], set[int]],
) -> None:
    """Raises SpeakerError unless inputs have these types, ranks and fixed axes, and the first
    output one of these types and ranks. Axes of variable length may have any name."""
    found = session.get_inputs()
    if len(found) != len(inputs):
        raise SpeakerError(f"{path} has {len(found)} inputs; expected {len(inputs)}", _HINT)
    for node, (kind, rank, axes) in zip(found, inputs, strict=True):
        fixed = all(
            not isinstance(node.shape[axis], int) or node.shape[axis] == size
            for axis, size in axes.items()
            if axis < len(node.shape)
        )
        if node.type != f"tensor({kind})" or len(node.shape) != rank or not fixed:
            raise SpeakerError(
                f"{path}: input {node.name!r} is {node.type} {node.shape}; expected {kind} of rank "
                f"{rank}" + "".join(f" with {size} at axis {axis}" for axis, size in axes.items()),
                _HINT,
            )
    first = session.get_outputs()[0]
    if first.type not in {f"tensor({kind})" for kind in outputs[0]} or (
        first.shape and len(first.shape) not in outputs[1]
    ):
        raise SpeakerError(
            f"{path}: output {first.name!r} is {first.type} {first.shape}; expected "
            f"{' or '.join(sorted(outputs[0]))}",
            _HINT,
        )
