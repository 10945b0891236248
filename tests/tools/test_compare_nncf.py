"""What NNCF needs of a graph, and what is said without it."""

from __future__ import annotations

from importlib import util

import onnx
import pytest
from support.quantization_examples import float_bundle

from cosyvoice_cpu.errors import MissingExtraError
from cosyvoice_cpu.quantization.calibration.altered_graphs import AlteredComponent
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances
from tools.compare_nncf import nncf_models, with_shapes


def test_every_value_of_a_graph_gets_its_shape_for_nncf() -> None:
    stages = BundleStages.load(float_bundle())
    (item,) = random_utterances(stages.manifest, prompt=8, tokens=12)
    call = AlteredComponent(stages.bundle, "flow_estimator", threads=1).run(item)[0]
    graph = call.source.path
    model = onnx.load(str(graph))
    with_shapes(model, graph.parent, call.feed)
    known = {value.name for value in [*model.graph.value_info, *model.graph.output]}
    assert {name for node in model.graph.node for name in node.output if name} <= known


@pytest.mark.skipif(bool(util.find_spec("nncf")), reason="nncf is installed")
def test_without_nncf_the_remedy_is_named() -> None:
    with pytest.raises(MissingExtraError, match="the comparison needs nncf"):
        nncf_models(onnx.ModelProto(), [])
