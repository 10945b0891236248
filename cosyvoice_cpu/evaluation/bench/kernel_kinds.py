"""What a kernel does, by its operator: products, attention, elementwise work, or moving memory.

Each kind is bounded by something else: products with weights by arithmetic (or by reading the
weights, where rows are few), attention by arithmetic between activations, elementwise work by
bandwidth and transcendental functions, moves by bandwidth alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

Kind = Literal["products", "attention", "elementwise", "memory"]

KINDS: tuple[Kind, ...] = ("products", "attention", "elementwise", "memory")

# As ONNX Runtime runs them: its own rewriting has other names than the file.
_PRODUCTS = frozenset(
    "Conv ConvInteger ConvTranspose DynamicQuantizeMatMul FusedConv FusedGemm FusedMatMul Gemm"
    " MatMul MatMulInteger MatMulIntegerToFloat MatMulNBits NhwcFusedConv QGemm QLinearConv"
    " QLinearMatMul".split()
)
_ATTENTION = frozenset(
    "Attention FlashAttention GroupQueryAttention MultiHeadAttention RotaryEmbedding"
    " Softmax".split()
)
_MEMORY = frozenset(
    "Cast Concat Constant ConstantOfShape Expand Flatten Gather GatherND Identity MemcpyFromHost"
    " MemcpyToHost Pad Range ReorderInput ReorderOutput Reshape ScatterND Shape Slice Split Squeeze"
    " Tile Transpose Unsqueeze".split()
)


def kind_of(operator: str) -> Kind:
    """Of an operator; what is in no list computes number by number."""
    if operator in _PRODUCTS:
        return "products"
    if operator in _ATTENTION:
        return "attention"
    return "memory" if operator in _MEMORY else "elementwise"


def shares(seconds: Iterable[tuple[str, float]]) -> dict[Kind, float]:
    """Part of all time by kind, from (operator, seconds); all zero where nothing took time."""
    sums = dict.fromkeys(KINDS, 0.0)
    for operator, spent in seconds:
        sums[kind_of(operator)] += spent
    total = sum(sums.values())
    return {kind: spent / total if total else 0.0 for kind, spent in sums.items()}
