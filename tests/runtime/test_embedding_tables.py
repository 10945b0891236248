"""Embedding tables, mapped row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.runtime.embedding_tables import EmbeddingTable


def test_a_mapped_table_reads_the_rows_that_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tables = {"a": rng.random((7, 5), np.float32), "b": rng.random((4, 3)).astype(np.float16)}
    save_file(tables, tmp_path / "w.safetensors")
    for name, table in tables.items():
        mapped = EmbeddingTable(tmp_path / "w.safetensors", name)
        assert mapped.shape == table.shape
        rows = mapped([2, 0, 2])
        assert rows.dtype == np.float32
        assert np.array_equal(rows, table[[2, 0, 2]].astype(np.float32))


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}", b"12345678{"])
def test_a_file_without_the_table_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"w\.safetensors holds no usable table a"):
        EmbeddingTable(path, "a")
