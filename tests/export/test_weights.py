"""Weight files: what is written is finite, whatever its type and wherever the bad number stands."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.networks_golden import CHECKPOINT

from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.export.weights import Weight, is_finite, not_finite, write_weights

BAD = (np.nan, np.inf, -np.inf)


@given(
    size=st.integers(1, 300),
    dtype=st.sampled_from([np.float16, np.float32, np.float64]),
    bad=st.sampled_from(BAD),
    data=st.data(),
)
def test_one_bad_number_at_any_place_is_found(
    size: int, dtype: type, bad: float, data: st.DataObject
) -> None:
    array = np.linspace(-60_000, 60_000, size, dtype=dtype)
    assert is_finite(array)
    array[data.draw(st.integers(0, size - 1))] = bad
    assert not is_finite(array)
    assert is_finite(np.zeros((0, 3), dtype)) and is_finite(np.full(3, 255, np.uint8))


def test_a_bad_number_behind_a_million_halves_is_found() -> None:
    array = np.ones((1 << 20) + 5, np.float16)
    assert is_finite(array)
    array[-1] = np.nan
    assert not is_finite(array)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("bad", BAD)
def test_no_weight_file_is_written_with_a_number_that_is_not_finite(
    tmp_path: Path, bad: float, half: bool
) -> None:
    table = np.ones((200, 100), np.float32)
    path = tmp_path / "weights.safetensors"
    write_weights(path, {"table": Weight.of(table)}, half=half)
    assert not_finite(path) == []
    table[-1, -1] = bad
    with pytest.raises(BundleError, match="the weight table holds NaN or infinity"):
        write_weights(path, {"table": Weight.of(table)}, half=half)


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("llm.pt", "llm.model.model.embed_tokens.weight", float("nan")),  # in no graph
        ("llm.pt", "speech_embedding.weight", float("-inf")),
        ("flow.pt", "input_embedding.weight", float("inf")),
        ("flow.pt", "input_embedding.weight", 1e300),  # beyond float32
    ],
)
def test_a_checkpoint_with_a_number_that_is_not_finite_is_not_exported(
    tmp_path: Path, file: str, key: str, value: float
) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder)
    state = torch.load(folder / file, weights_only=True)
    state[key] = state[key].double()
    state[key][-1, -1] = value
    torch.save(state, folder / file)
    with pytest.raises(BundleError, match="holds NaN or infinity"):
        export_checkpoint(folder, tmp_path / "bundle", max_seconds=4, front_end=False)
    assert not (tmp_path / "bundle").exists()
