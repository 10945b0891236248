"""The streaming mask as OpenVINO wants it: an input, not channels of query and key.

`networks.deployed.operators.ChunkMask` carries the mask in channels of its own, which makes heads
wider than 64; kernels want multiples of 16. Here the channels' product is taken once, as one
mask [T, T] for all blocks, and heads are 64 wide again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_ATTENTION = "ScaledDotProductAttention"
_BACK = ("Transpose", "Reshape")  # between the joined channels and the attention
_PARTS = 2  # the head's own channels, the mask's


def separate_masks(model: Any) -> None:
    """Rewrite `model` (an `openvino.Model`) in place; one without such masks stays as it is."""
    from openvino import opset13 as ops

    mask = None
    for node in [each for each in model.get_ops() if each.get_type_name() == _ATTENTION]:
        joined = [_joined_channels(node.input_value(index)) for index in (0, 1)]
        if None in joined:
            continue
        scale = ops.constant(_value(node.input_value(4)))
        if mask is None:  # the same for all blocks and both rows
            query, key = (_of_first_head(ops, each.input_value(1)) for each in joined)
            product = ops.multiply(ops.matmul(query, key, False, True), scale)
            mask = ops.unsqueeze(product, ops.constant([0, 1]))  # [1, 1, T, T]
        order = ops.constant([0, 2, 1, 3])
        query, key = (ops.transpose(each.input_value(0), order) for each in joined)
        attention = ops.scaled_dot_product_attention(
            query, key, node.input_value(2), mask, scale, False
        )
        attention.set_friendly_name(node.get_friendly_name())
        node.output(0).replace(attention.output(0))
    model.validate_nodes_and_infer_types()


def _joined_channels(port: Any) -> Any:
    """The node that joins a head's channels [B, T, heads, C] with the mask's, None without one."""
    node = port.get_node()
    while node.get_type_name() in _BACK:
        node = node.input_value(0).get_node()
    shape = node.get_output_partial_shape(0)
    if node.get_type_name() != "Concat" or node.get_input_size() != _PARTS or len(shape) != 4:
        return None
    # The rotary's own concatenation joins heads, not channels.
    return node if node.get_attributes()["axis"] in (3, -1) else None


def _value(port: Any) -> Any:
    """Of a constant, converted or not: its type may follow from another node."""
    node = port.get_node()
    while node.get_type_name() != "Constant":
        node = node.input_value(0).get_node()
    return node.data.astype(np.float32)


def _of_first_head(ops: Any, port: Any) -> Any:
    """[T, E] of [B, T, heads, E]."""
    first = ops.gather(port, ops.constant(0), ops.constant(0))  # [T, heads, E]
    return ops.gather(first, ops.constant(0), ops.constant(1))
