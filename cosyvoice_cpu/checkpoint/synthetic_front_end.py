"""Small random stand-ins for the two ONNX models of the front end, with the official signatures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosyvoice_cpu.checkpoint.config import CheckpointConfig
from cosyvoice_cpu.errors import library_error

if TYPE_CHECKING:
    import onnx

_OPSET, _IR_VERSION = 17, 8  # read by every supported onnxruntime
_HIDDEN = 64
_FBANK_BINS, _WHISPER_BINS = 80, 128
_DIGITS = 8  # the official tokenizer's code: 8 ternary digits, 3^8 = 6561 ids


def save_speaker_encoder(path: Path, config: CheckpointConfig, seed: int) -> None:
    """campplus.onnx: `input` float32 [1, T, 80] to `output` float32 [1, 192].

    How strongly 64 random mixtures of the bins move over time, on a log scale, mixed again: it
    depends on the voice, hardly on the words, and on no length.
    """
    helper, types = _onnx()
    random = np.random.default_rng([seed, 1])
    width = config.flow.spk_embed_dim
    weights: dict[str, NDArray[Any]] = {
        "w1": _normal(random, (_FBANK_BINS, _HIDDEN), 1 / np.sqrt(_FBANK_BINS)),
        "floor": np.array(1e-3, np.float32),
        "usual": np.array(1.5, np.float32),  # log variance of speech, so the rest is about zero
        "w2": _normal(random, (_HIDDEN, width), 1.5 / np.sqrt(_HIDDEN)),
        "b2": _normal(random, (width,), 0.2),
    }
    nodes = [
        helper.make_node("MatMul", ["input", "w1"], ["mixed"]),
        helper.make_node("Mul", ["mixed", "mixed"], ["power"]),
        helper.make_node("ReduceMean", ["power"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("Add", ["mean", "floor"], ["positive"]),
        helper.make_node("Log", ["positive"], ["level"]),
        helper.make_node("Sub", ["level", "usual"], ["centred"]),
        helper.make_node("MatMul", ["centred", "w2"], ["spread"]),
        helper.make_node("Add", ["spread", "b2"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", types.FLOAT, [1, "T", _FBANK_BINS])]
    outputs = [helper.make_tensor_value_info("output", types.FLOAT, [1, width])]
    _save(path, "campplus", nodes, inputs, outputs, weights)


def save_speech_tokenizer(path: Path, config: CheckpointConfig, seed: int) -> None:
    """speech_tokenizer_v3.onnx: `feats` float32 [1, 128, T], `feats_length` int32 [1] to ids.

    `indices` int32 [1, N], N = ceil(ceil(length / 2) / 2), ids in 0..V-1. As the official one:
    two convolutions of stride 2, then finite scalar quantization to 8 ternary digits.
    """
    helper, types = _onnx()
    random = np.random.default_rng([seed, 2])
    vocabulary = config.speech_lm.speech_token_size
    weights: dict[str, NDArray[Any]] = {
        "w1": _normal(random, (_HIDDEN, _WHISPER_BINS, 3), 2 / np.sqrt(3 * _WHISPER_BINS)),
        "b1": _normal(random, (_HIDDEN,), 0.1),
        "w2": _normal(random, (_HIDDEN, _HIDDEN, 3), 2 / np.sqrt(3 * _HIDDEN)),
        "b2": _normal(random, (_HIDDEN,), 0.1),
        "w3": _normal(random, (_HIDDEN, _DIGITS), 3 / np.sqrt(_HIDDEN)),
        # ids = digits (-1, 0, 1) to 0..6560, then spread evenly over the vocabulary
        "powers": (3.0 ** np.arange(_DIGITS)).astype(np.float32)[:, None],
        "middle": np.array((3**_DIGITS - 1) // 2, np.float32),
        "spread": np.array(vocabulary / 3**_DIGITS, np.float32),
        "last": np.array(vocabulary - 1, np.float32),
        "three": np.array([3], np.int64),
        "four": np.array([4], np.int64),
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "time": np.array([2], np.int64),
    }
    conv = {"strides": [2], "pads": [1, 1]}
    nodes = [
        # Only the first `feats_length` frames count; ceil(ceil(n / 2) / 2) = (n + 3) // 4.
        helper.make_node("Cast", ["feats_length"], ["length"], to=types.INT64),
        helper.make_node("Slice", ["feats", "zero", "length", "time"], ["valid"]),
        helper.make_node("Conv", ["valid", "w1", "b1"], ["c1"], **conv),
        helper.make_node("Tanh", ["c1"], ["h1"]),
        helper.make_node("Conv", ["h1", "w2", "b2"], ["c2"], **conv),
        helper.make_node("Tanh", ["c2"], ["h2"]),
        helper.make_node("Transpose", ["h2"], ["h3"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h3", "w3"], ["z"]),
        helper.make_node("Tanh", ["z"], ["bounded"]),
        helper.make_node("Round", ["bounded"], ["digits"]),
        helper.make_node("MatMul", ["digits", "powers"], ["centred"]),
        helper.make_node("Add", ["centred", "middle"], ["code"]),
        helper.make_node("Mul", ["code", "spread"], ["scaled"]),
        helper.make_node("Min", ["scaled", "last"], ["within"]),
        helper.make_node("Cast", ["within"], ["ids"], to=types.INT32),
        helper.make_node("Squeeze", ["ids", "time"], ["all"]),
        helper.make_node("Add", ["length", "three"], ["padded"]),
        helper.make_node("Div", ["padded", "four"], ["count"]),
        helper.make_node("Slice", ["all", "zero", "count", "one"], ["indices"]),
    ]
    inputs = [
        helper.make_tensor_value_info("feats", types.FLOAT, [1, _WHISPER_BINS, "T"]),
        helper.make_tensor_value_info("feats_length", types.INT32, [1]),
    ]
    outputs = [helper.make_tensor_value_info("indices", types.INT32, [1, "N"])]
    _save(path, "speech_tokenizer", nodes, inputs, outputs, weights)


def _onnx() -> tuple[Any, Any]:
    try:
        from onnx import TensorProto, helper
    except ImportError as error:
        raise library_error(error, "making a checkpoint's ONNX models needs onnx") from None
    return helper, TensorProto


def _normal(random: np.random.Generator, shape: tuple[int, ...], std: float) -> NDArray[np.float32]:
    return random.normal(0.0, std, shape).astype(np.float32)


def _save(
    path: Path,
    name: str,
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    weights: dict[str, NDArray[Any]],
) -> None:
    from onnx import checker, helper, numpy_helper, save

    initializers = [numpy_helper.from_array(array, key) for key, array in weights.items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", _OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    checker.check_model(model)
    save(model, path)
