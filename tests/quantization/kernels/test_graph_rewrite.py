"""Names in quantized graphs: what callers use stays, what is between nodes is short."""

from __future__ import annotations

from pathlib import Path

import onnx
from support.quantization_examples import float_bundle, quantize_on_random_ids


def test_inputs_outputs_and_weights_keep_their_names_and_values_between_are_numbered(
    tmp_path: Path,
) -> None:
    quantize_on_random_ids(float_bundle(), tmp_path / "out", recipe="int8", force=True)
    graphs = sorted((tmp_path / "out" / "flow_estimator").glob("*.onnx"))
    assert graphs
    for path in graphs:
        before, after = (
            onnx.load(str(root / "flow_estimator" / path.name), load_external_data=False).graph
            for root in (float_bundle(), tmp_path / "out")
        )
        for side in ("input", "output"):
            names = [[entry.name for entry in getattr(graph, side)] for graph in (before, after)]
            assert names[0] == names[1]
        outside = {entry.name for entry in (*after.input, *after.output, *after.initializer)}
        between = {name for node in after.node for name in node.output} - outside
        assert between and all(len(name) <= 5 and name.startswith("v") for name in between)
        given = {name for node in after.node for name in node.input if name}
        assert given <= outside | between
