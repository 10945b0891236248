"""Where tensors lie in other files, read and changed without the onnx package."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from cosyvoice_cpu.bundle.external_data import (
    Extent,
    PackedForm,
    StoredTensor,
    relocated,
    stored_tensors,
)
from cosyvoice_cpu.bundle.protobuf import MalformedError


def graph(packed: str = "Kernel+7|4096;300;0|8192;20;1") -> onnx.ModelProto:
    """Three constants: one inline, one in a file, one there with a form of it."""
    inline = numpy_helper.from_array(np.zeros(3, np.float32), "inline")
    tensors = []
    for name, entries in {
        "plain": {"location": "a.bin", "offset": "64", "length": "12"},
        "packed": {"location": "a.bin", "offset": "0", "length": "12", "prepacked_0": packed},
    }.items():
        tensor = onnx.TensorProto(name=name, dims=[3], data_type=onnx.TensorProto.FLOAT)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=value)
        tensors.append(tensor)
    node = helper.make_node("Sum", ["inline", "plain", "packed"], ["sum"])
    made = helper.make_graph([node], "graph", [], [], [inline, *tensors])
    return helper.make_model(made)


PLAIN = StoredTensor("plain", "a.bin", Extent(64, 12), ())
PACKED = StoredTensor(
    "packed",
    "a.bin",
    Extent(0, 12),
    (PackedForm("Kernel+7", (Extent(4096, 300, "0"), Extent(8192, 20, "1"))),),
)


def test_tensors_in_other_files_are_found_with_what_kernels_made_of_them() -> None:
    assert stored_tensors(graph().SerializeToString()) == [PLAIN, PACKED]


def test_a_graph_whose_tensors_stay_is_the_same_graph() -> None:
    model = graph()
    same = onnx.load_from_string(relocated(model.SerializeToString(), lambda tensor: tensor))
    assert [t.name for t in same.graph.initializer] == ["inline", "plain", "packed"]
    assert same == model


@given(st.lists(st.integers(0, 2**62), min_size=3, max_size=3), st.text("ab.", min_size=1))
def test_moved_tensors_are_read_at_their_new_places(offsets: list[int], location: str) -> None:
    def move(tensor: StoredTensor) -> StoredTensor:
        return tensor.moved(location, offsets) if tensor.packed else tensor

    plain, packed = stored_tensors(relocated(graph().SerializeToString(), move))
    assert plain == PLAIN
    assert packed.location == location
    assert [extent.offset for extent in packed.extents] == offsets
    assert [extent.length for extent in packed.extents] == [12, 300, 20]
    assert packed.packed[0].key == "Kernel+7"


@pytest.mark.parametrize("packed", ["Kernel|1", "Kernel|a;2;3", "Kernel|1;2;3;4"])
def test_a_form_that_is_written_otherwise_is_refused(packed: str) -> None:
    with pytest.raises(MalformedError):
        stored_tensors(graph(packed).SerializeToString())


def test_bytes_that_are_no_graph_are_refused() -> None:
    with pytest.raises(MalformedError):
        stored_tensors(b"\x3a\x05\x2a\xff")
