"""Pairs of text and tokens."""

from __future__ import annotations

import json

import pytest

from training.pairs import Pairs


def test_pairs_are_read_back_in_order(tmp_path):
    shards = ([["One.", [1, 2], [[0, 2]]]], [["Two.", [3], []], ["Three.", [4, 5], [[0, 1]]]])
    for number, pairs in enumerate(shards):
        (tmp_path / f"pairs-{number:04d}.json").write_text(json.dumps(pairs))
    read = Pairs.load(tmp_path)
    assert list(read.texts) == ["One.", "Two.", "Three."]
    assert [list(ids) for ids in read.ids] == [[1, 2], [3], [4, 5]]
    assert [times.tolist() for times in read.times] == [[[0, 2]], [], [[0, 1]]]
    assert len(Pairs.load(tmp_path, max_shards=1) + read) == 4
    with pytest.raises(FileNotFoundError, match="holds no pairs"):
        Pairs.load(tmp_path / "nowhere")
