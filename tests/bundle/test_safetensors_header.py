"""The header of a safetensors file: read strictly, tensors left where they are."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save

from cosyvoice_cpu.bundle.safetensors_header import (
    parse_header,
    read_header,
    with_sorted_metadata,
)

TENSORS = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(0, np.int8)}


def with_header(change: Callable[[str], str]) -> bytes:
    """A file whose header was changed as text."""
    content = save(TENSORS, {"format": "x"})
    size = int.from_bytes(content[:8], "little")
    header = change(content[8 : 8 + size].decode()).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def many_tensors(count: int) -> bytes:
    """A file of so many bytes, a tensor each."""
    entries = {
        f"t{i}": {"dtype": "U8", "shape": [1], "data_offsets": [i, i + 1]} for i in range(count)
    }
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text + bytes(count)


def test_the_header_says_where_each_tensor_lies(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(save(TENSORS, {"format": "x"}))
    header = read_header(path)
    assert header.metadata == {"format": "x"}
    assert header.tensors.keys() == load_file(path).keys()
    low, high = header.tensors["a"]["data_offsets"]
    data = path.read_bytes()[header.start + low : header.start + high]
    assert np.array_equal(np.frombuffer(data, np.float32).reshape(2, 3), TENSORS["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is truncated"),
        (b"\xff" * 8, "its header is too long"),
        (save(TENSORS)[:20], "it is truncated"),
        (with_header(lambda h: h.replace('"b"', '"a"')), "the key `a` appears twice in one object"),
        (with_header(lambda h: h[:-9]), "its header is not valid: "),
        (with_header(lambda h: "[" * 50_000), "its header is not valid: is nested too deeply"),
        (with_header(lambda h: "[]"), "its header is no table"),
        (with_header(lambda h: h.replace('"x"', "1")), "its metadata are no table of texts"),
        (with_header(lambda h: h.replace("[0,24]", "[0,24000]")), "'a' is outside the file"),
        (with_header(lambda h: h.replace("[0,24]", "[-1,24]")), "'a' is outside the file"),
        (with_header(lambda h: h.replace("[0,24]", "[0,24.0]")), "'a' has no place"),
        (with_header(lambda h: json.dumps({"a": 1})), "'a' has no place"),
        (with_header(lambda h: h.replace("[0,24]", "[0,20]")), "of another size than its shape"),
        (with_header(lambda h: h.replace("[2,3]", "[2,-3]")), "'a' has no shape"),
        (with_header(lambda h: h.replace("[2,3]", "[2,3.0]")), "'a' has no shape"),
        (with_header(lambda h: h.replace("[2,3]", "[1e400]")), "'a' has no shape"),
        (with_header(lambda h: h.replace("[2,3]", '"23"')), "'a' has no shape"),
        (with_header(lambda h: h.replace("[2,3]", "[" + "1," * 99 + "6]")), "of another size"),
        (with_header(lambda h: h.replace("[0]", f"[0,{2**62}]")), "'b' has an axis that can't be"),
        (many_tensors(20_001), "it has 20001 tensors, more than 20000"),
        (many_tensors(200_000), "its header is too long"),
        (with_header(lambda h: h.replace('"F32"', '"F31"')), "of the unknown type 'F31'"),
        (with_header(lambda h: h.replace('"F32"', "[1]")), "of the unknown type [1]"),
        (with_header(lambda h: h.replace('"F32"', '"F32","x":1')), "not exactly type, shape"),
        (with_header(lambda h: h.replace('"dtype":"F32",', "")), "not exactly type, shape"),
        (with_header(lambda h: h.replace("[24,24]", "[8,8]")), "overlaps another, or leaves a gap"),
        (save(TENSORS) + b"more", "it has bytes that belong to no tensor"),
    ],
)
def test_a_header_that_readers_could_misread_is_refused(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError) as refused:
        read_header(path)
    assert message in str(refused.value)


def test_texts_are_sorted_and_nothing_else_changes() -> None:
    tensors = {"b": np.arange(3, dtype=np.float32), "a": np.ones((2, 2), np.int32)}
    texts = {"version": "1", "name": "Ånna", "format": "x"}
    content = with_sorted_metadata(save(tensors, texts))
    header = parse_header(io.BytesIO(content), len(content))
    assert list(header.metadata.items()) == sorted(texts.items())
    assert header.start % 8 == 0
    for name, tensor in load(content).items():
        assert np.array_equal(tensor, tensors[name])
    assert content == with_sorted_metadata(content)
