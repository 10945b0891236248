"""Embedding tables are read as docs/bundle.md says, by a reader written from that page alone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file
from support.places import DOCS

from cosyvoice_cpu.export.weights import Weight, write_weights
from cosyvoice_cpu.quantization.kernels.variants import TableFormat, pack_table
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable

TABLE = np.random.default_rng(0).normal(0, 1, (7, 96)).astype(np.float32)
LARGEST_ERROR = {"float16": 1e-3, "int8-rows": 0.02, "int4-blocks": 0.4}


def read_row(tensors: dict[str, NDArray[np.generic]], row: int) -> list[float]:
    """Row `row` of the table NAME, value by value."""
    stored, scale = tensors["NAME"], tensors.get("NAME.scale")
    if stored.dtype in (np.float32, np.float16):
        return [float(value) for value in stored[row]]
    assert scale is not None
    if stored.dtype == np.int8:
        return [float(value) * float(scale[row]) for value in stored[row]]
    assert stored.dtype == np.uint8
    width = 2 * stored.shape[1]
    block = width // scale.shape[1]
    values = []
    for j in range(width):
        byte = int(stored[row, j // 2])
        q = byte & 15 if j % 2 == 0 else byte >> 4
        values.append((q - 8) * float(scale[row, j // block]))
    return values


@pytest.mark.parametrize("form", LARGEST_ERROR)
def test_a_reader_of_the_page_reads_every_kind_of_table(form: TableFormat, tmp_path: Path) -> None:
    weight = Weight(TABLE.shape, TABLE.dtype, lambda: TABLE)
    path = tmp_path / "weights.safetensors"
    write_weights(path, pack_table("NAME", weight, form))
    read = np.array([read_row(load_file(path), row) for row in range(len(TABLE))], np.float32)
    assert np.abs(read - TABLE).max() < LARGEST_ERROR[form] * np.abs(TABLE).max()
    assert np.array_equal(EmbeddingTable(path, "NAME")(range(len(TABLE))), read)


def test_the_page_has_a_row_for_every_type_of_table() -> None:
    page = (DOCS / "bundle.md").read_text(encoding="utf-8")
    section = page.split("### Embedding tables")[1].split("\n## ")[0]
    assert re.findall(r"^\| (\w+)(?: or (\w+))? \[R", section, re.MULTILINE) == [
        ("F32", "F16"),
        ("I8", ""),
        ("U8", ""),
    ]
