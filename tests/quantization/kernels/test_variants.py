"""Integers and scales: their laws, and that ONNX Runtime's kernels read them as meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from onnx import TensorProto, helper, numpy_helper

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.distances import sqnr_db
from cosyvoice_cpu.export.weights import Weight, write_weights
from cosyvoice_cpu.quantization.kernels.integers import (
    NIBBLE_ZERO,
    UNSIGNED_ZERO,
    quantize_blocks,
    quantize_columns,
    quantize_nibbles,
    quantize_nibbles_from_zero,
    quantize_rows,
)
from cosyvoice_cpu.quantization.kernels.parameters import LayerParameters
from cosyvoice_cpu.quantization.kernels.variants import KERNELS, KernelVariant, pack_table
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable

matrices = arrays(
    np.float32,
    array_shapes(min_dims=2, max_dims=2, max_side=40),
    elements=st.floats(-1e4, 1e4, width=32),
)


def half_a_step(scale: np.ndarray) -> np.ndarray:
    return scale * (0.5 + 1e-5)


@given(matrices)
def test_no_value_moves_by_more_than_half_the_step_of_its_column(weight: np.ndarray) -> None:
    integers, scale = quantize_columns(weight)
    assert np.all(np.abs(integers * scale - weight) <= half_a_step(scale) + 1e-37)


@given(matrices, st.sampled_from([16, 32, 128]))
def test_no_value_moves_by_more_than_half_the_step_of_its_block(
    weight: np.ndarray, block: int
) -> None:
    rows, columns = weight.shape
    integers, scale = quantize_blocks(weight, block)
    blocks = -(-rows // block)
    assert integers.shape == (columns, blocks, block)
    steps = scale.reshape(columns, blocks, 1)
    values = (integers.astype(np.float32) - UNSIGNED_ZERO) * steps
    assert np.all(values.reshape(columns, -1)[:, rows:] == 0)
    moved = np.abs(values.reshape(columns, -1)[:, :rows] - weight.T)
    allowed = half_a_step(np.repeat(steps[:, :, 0], block, axis=1)[:, :rows])
    assert np.all(moved <= allowed + 1e-37)


def nibbles(packed: np.ndarray) -> np.ndarray:
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def in_blocks(weight: np.ndarray, block: int) -> np.ndarray:
    blocks = -(-len(weight) // block)
    padded = np.pad(weight.T, ((0, 0), (0, blocks * block - len(weight))))
    return padded.reshape(weight.shape[1], blocks, block)


@given(matrices, st.sampled_from([16, 32, 128]))
def test_four_bits_are_nowhere_worse_than_rounding_by_the_largest_value(
    weight: np.ndarray, block: int
) -> None:
    packed, scale = quantize_nibbles(weight, block)
    groups = in_blocks(weight, block).astype(np.float64)
    scale = scale.reshape(*groups.shape[:2], 1).astype(np.float64)
    integers = nibbles(packed).astype(np.float64)
    error = np.square((integers - NIBBLE_ZERO) * scale - groups).sum(-1)
    step = np.abs(groups).max(-1, keepdims=True) / 7
    plain = np.square(np.rint(groups / np.where(step > 0, step, 1)) * step - groups).sum(-1)
    assert np.all(error <= plain * 1.0001 + 1e-6 * np.square(groups).sum(-1) + 1e-37)


@given(matrices, st.sampled_from([16, 32, 128]))
def test_zero_points_keep_a_value_within_a_step_of_its_block(
    weight: np.ndarray, block: int
) -> None:
    """Within a few steps where clipping a far value is what makes the block's error least."""
    packed, scale, zeros = quantize_nibbles_from_zero(weight, block)
    groups = in_blocks(weight, block)
    zero = nibbles(zeros)[:, : groups.shape[1], None].astype(np.float32)
    values = (nibbles(packed) - zero) * scale.reshape(*groups.shape[:2], 1)
    error = np.square(values - groups).sum(-1)
    span = groups.max(-1).clip(0) - groups.min(-1).clip(max=0)
    assert np.all(error <= block * np.square(span / 15 * 1.01) + 1e-30)


def test_blocks_on_one_side_of_zero_gain_by_a_zero_point() -> None:
    weight = np.random.default_rng(0).uniform(0.5, 1.5, (256, 8)).astype(np.float32)
    groups = in_blocks(weight, 32)
    packed, scale = quantize_nibbles(weight, 32)
    plain = (nibbles(packed).astype(np.float32) - NIBBLE_ZERO) * scale.reshape(8, 8, 1)
    packed, scale, zeros = quantize_nibbles_from_zero(weight, 32)
    moved = (nibbles(packed) - nibbles(zeros)[..., None].astype(np.float32)) * scale.reshape(
        8, 8, 1
    )
    assert sqnr_db(moved, groups) > sqnr_db(plain, groups)


@given(matrices)
def test_no_value_moves_by_more_than_half_the_step_of_its_row(table: np.ndarray) -> None:
    integers, scale = quantize_rows(table)
    assert np.all(np.abs(integers * scale[:, None] - table) <= half_a_step(scale)[:, None] + 1e-37)


def test_rows_are_the_same_whether_a_table_is_long_or_short() -> None:
    table = np.random.default_rng(0).standard_normal((8200, 3)).astype(np.float32)
    integers, scale = quantize_rows(table)
    last, last_scale = quantize_rows(table[-5:])
    assert np.array_equal(integers[-5:], last)
    assert np.array_equal(scale[-5:], last_scale)


def test_zeros_stay_zeros_and_have_a_scale_to_divide_by() -> None:
    integers, scale = quantize_columns(np.zeros((4, 3), np.float32))
    assert not integers.any()
    assert np.all(scale == 1)


def test_the_largest_value_of_a_column_uses_the_whole_range() -> None:
    integers, _ = quantize_columns(np.array([[0.5, -3], [-2, 1]], np.float32))
    assert integers.tolist() == [[32, -127], [-127, 42]]


VARIANTS = [
    KernelVariant("dynamic-int8"),
    KernelVariant("weight-only-int8"),
    *(KernelVariant("weight-only-int4", block) for block in (32, 64, 128)),
    KernelVariant("weight-only-int4", 32, zero_points=True),
    KernelVariant("static-int8"),
]


def test_every_kernel_is_tried() -> None:
    assert {variant.kernel for variant in VARIANTS} == set(KERNELS)


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("shape", [(1, 896), (37, 130), (2, 9, 64)])
@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("prepack", [True, False])
def test_the_engine_computes_what_the_integers_mean(
    variant: KernelVariant, shape: tuple[int, ...], with_bias: bool, prepack: bool
) -> None:
    """For one row, many rows and three axes; for K that is no multiple of the block."""
    rng = np.random.default_rng(0)
    rows, columns = shape[-1], 75
    x = rng.standard_normal(shape).astype(np.float32)
    weight = rng.standard_normal((rows, columns)).astype(np.float32)
    bias = rng.standard_normal(columns).astype(np.float32)
    kernel = KERNELS[variant.kernel]
    low, high = float(x.min()), float(x.max())
    scale = (high - low) / 255
    found = LayerParameters(low, high, scale, round(-low / scale), quantize_columns(weight)[1])
    packed = kernel.pack("w", Weight.of(weight), variant, found)
    tensors = {k: w.load() for k, w in packed.items()}
    product = helper.make_node("Gemm", ["x", "w"], ["y"])
    graph = helper.make_graph(
        kernel.nodes(product, "w", weight.shape, "b" if with_bias else None, variant),
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, key) for key, array in {**tensors, "b": bias}.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_prepacking", "01"[not prepack])
    options.add_session_config_entry("session.x64quantprecision", "1")
    got = ort.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]
    assert sqnr_db(got, x @ weight + (bias if with_bias else 0)) > (
        17 if variant.kernel == "weight-only-int4" else 36
    )


@pytest.mark.parametrize(
    ("layout", "least"), [("float16", 70), ("int8-rows", 40), ("int4-blocks", 20)]
)
def test_a_table_keeps_its_values_within_what_its_format_can_hold(
    layout: str, least: float, tmp_path: Path
) -> None:
    table = np.random.default_rng(0).standard_normal((50, 896)).astype(np.float32) / 50
    write_weights(tmp_path / "t.safetensors", pack_table("t", Weight.of(table), layout))
    read = EmbeddingTable(tmp_path / "t.safetensors", "t")
    ids = [7, 0, 49, 7]
    assert read.shape == table.shape
    assert sqnr_db(read(ids), table[ids]) > least


def test_an_int4_table_of_odd_width_is_refused() -> None:
    with pytest.raises(UsageError, match="t has rows of 40 values, int4-blocks takes multiples"):
        pack_table("t", Weight.of(np.zeros((3, 40), np.float32)), "int4-blocks")
