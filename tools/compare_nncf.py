"""NNCF's post-training quantization of a flow step, beside a bundle that a recipe made.

    python -m tools.compare_nncf voice/ voice-int8/ [--threads N]

It takes the package `nncf`, which no extra installs: in an environment of its own. NNCF gets the
float graph, all calls of one calibration item, and the layers that the recipe keeps as well; both
results are compared with float32 on the calls of another item. The result is a graph with
QuantizeLinear and DequantizeLinear, which ONNX Runtime fuses as far as it can.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.component_runner import utterance_frames
from cosyvoice_cpu.errors import MissingExtraError, UsageError
from cosyvoice_cpu.evaluation.distances import sqnr_db
from cosyvoice_cpu.quantization.calibration.altered_graphs import AlteredComponent
from cosyvoice_cpu.quantization.calibration.pairs import calibration_items
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT
from cosyvoice_cpu.quantization.search.timing import alternating_ratio
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session
from tools.failures import reports_failures

Feed = Mapping[str, NDArray[Any]]

_FLOW: ComponentName = "flow_estimator"
_KEPT = ("input", "final")  # float32 in the recipes, and so are convolutions
_OUTPUT = "velocity"


def nncf_models(model: onnx.ModelProto, feeds: Sequence[Feed]) -> dict[str, onnx.ModelProto]:
    """What NNCF makes of the float `model` [with its weights inside], by a name for the table.

    Raises: MissingExtraError without NNCF.
    """
    if util.find_spec("nncf") is None:
        raise MissingExtraError(
            "the comparison needs nncf, not installed here", "pip install nncf, in its own folder"
        )
    import nncf

    kept = [
        node.name
        for node in model.graph.node
        if node.op_type == "Conv"
        or (len(node.input) > 1 and node.input[1].removesuffix(WEIGHT) in _KEPT)
    ]
    with_smoothing = {
        "model_type": nncf.ModelType.TRANSFORMER,  # turns SmoothQuant on
        "ignored_scope": nncf.IgnoredScope(names=kept),
    }
    settings: dict[str, dict[str, Any]] = {
        "NNCF, defaults": {},
        "NNCF, SmoothQuant": with_smoothing,
        "NNCF, SmoothQuant, bias correction": with_smoothing | {"fast_bias_correction": False},
    }
    return {
        name: nncf.quantize(model, nncf.Dataset(list(feeds)), subset_size=len(feeds), **chosen)
        for name, chosen in settings.items()
    }


def with_shapes(model: onnx.ModelProto, folder: Path, feed: Feed) -> None:
    """Note the shape of every value, from one call.

    NNCF leaves out edges without a shape, and ONNX knows none behind ONNX Runtime's own operators.
    """
    outside = {value.name for value in [*model.graph.input, *model.graph.output]}
    names = [name for node in model.graph.node for name in node.output if name not in outside]
    names = [name for name in names if name]
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    watched.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    session = open_session(watched.SerializeToString(), threads=1, weights_folder=folder)
    arrays = session.run(names, feed)
    model.graph.value_info.extend(
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
        )
        for name, array in zip(names, arrays, strict=True)
    )


def compare(float32: Path, quantized: Path, threads: int) -> list[tuple[str, float, float, float]]:
    """Rows: name, worst and mean SQNR in dB of a step's velocity, times as fast as float32.

    Raises: UsageError for calibration data of one length only once, BundleError.
    """
    stages = BundleStages(open_bundle(float32), threads)
    data = calibration_items(stages, None, lambda done: None)
    items = [*data.fitted, *data.held_out]
    frames = utterance_frames(stages, items[0])
    same = [item for item in items if utterance_frames(stages, item) == frames]
    if len(same) == 1:
        raise UsageError("no two calibration items are of one length", "add clips of six seconds")
    component = AlteredComponent(stages.bundle, _FLOW, threads)
    fitted, held_out = (component.run(item) for item in same[:2])
    feeds = [call.feed for call in held_out]
    graph = fitted[0].source.path

    model = onnx.load(str(graph))
    with_shapes(model, graph.parent, fitted[0].feed)
    other = open_bundle(quantized).file(_FLOW, graph.name)
    candidates = {str(quantized): onnx.load(str(other))}
    candidates |= nncf_models(model, [call.feed for call in fitted])
    session = open_session(model.SerializeToString(), threads, weights_folder=graph.parent)
    rows = []
    for name, candidate in candidates.items():
        tried = open_session(candidate.SerializeToString(), threads, prepack=True)
        values = [
            sqnr_db(
                tried.run([_OUTPUT], call.feed)[0][:, :, :frames],
                call.outputs[_OUTPUT][:, :, :frames],
            )
            for call in held_out
        ]
        calls: list[Callable[[], None]] = [
            partial(_call, side, feeds[0]) for side in (session, tried)
        ]
        rows.append((name, min(values), float(np.mean(values)), alternating_ratio(*calls)))
    return rows


def _call(session: Any, feed: Feed) -> None:
    session.run([_OUTPUT], feed)


@reports_failures
def main() -> int:
    """Print the table; exit code 0, or 2 for what can't be done."""
    parser = argparse.ArgumentParser(description="A flow step by NNCF, beside a bundle.")
    parser.add_argument("float32", type=Path)
    parser.add_argument("quantized", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    print("| | worst SQNR, dB | mean SQNR, dB | times as fast |\n|---|---|---|---|")
    for name, worst, mean, faster in compare(options.float32, options.quantized, options.threads):
        print(f"| {name} | {worst:.1f} | {mean:.1f} | {faster:.2f} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
