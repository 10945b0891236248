"""What the import contract in pyproject.toml can't say: who uses which part of torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def names(tree: ast.AST) -> Iterator[str]:
    """Every dotted name that a module imports or reaches by attributes: `torch.onnx.export`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute):
            yield ast.unparse(node)


def users(of: str) -> list[str]:
    """The modules of the package that use `of` or something in it."""
    return [
        str(file.relative_to(ROOT))
        for file in sorted((ROOT / "cosyvoice_cpu").rglob("*.py"))
        if any(
            name == of or name.startswith(f"{of}.")
            for name in names(ast.parse(file.read_text(encoding="utf-8")))
        )
    ]


@pytest.mark.parametrize("moving_target", ["torch.ao.quantization", "torch.onnx.export"])
def test_a_part_of_torch_that_changes_has_one_user(moving_target: str) -> None:
    assert len(users(moving_target)) == 1, users(moving_target)
