"""Files of torch.save: what torch would read, or one line; never time or memory beyond the file."""

from __future__ import annotations

import io
import pickle
import resource
import struct
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosyvoice_cpu.checkpoint.pickled_tensors import MAX_BYTES
from cosyvoice_cpu.checkpoint.torch_files import OtherTensor, TorchFileError, read_torch_file

DTYPES = (
    *(torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8),
    *(torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64, torch.complex128),
)


def saved(folder: Path, value: Any, **options: Any) -> Path:
    torch.save(value, folder / "a.pt", **options)
    return folder / "a.pt"


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, entries: dict[str, bytes], **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def program(path: Path, content: bytes) -> Path:
    """The file at `path` with another list of tensors."""
    return packed(path, entries_of(path) | {"a/data.pkl": content})


def refusal(path: Path) -> str:
    """What the file is refused with: soon, and without memory for what it claims to hold."""
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    with pytest.raises(TorchFileError) as caught:
        read_torch_file(path)
    assert time.monotonic() - started < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KB
    assert 0 < len(str(caught.value)) < 300
    return str(caught.value)


@st.composite
def tensors(draw: Any) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    whole = torch.randint(0, 100, shape).to(draw(st.sampled_from(DTYPES)))
    if shape and draw(st.booleans()):
        whole = whole.transpose(0, len(shape) - 1)
    if shape and shape[0] > 1 and draw(st.booleans()):
        whole = whole[1:]
    return whole


@given(values=st.dictionaries(st.text(max_size=5), tensors(), max_size=5))
def test_good_files_give_what_torch_reads(
    values: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = saved(tmp_path_factory.mktemp("good"), values)
    got, want = read_torch_file(path), torch.load(path, weights_only=True)
    assert list(got) == list(want)
    for key, tensor in want.items():
        assert got[key].dtype == tensor.dtype and got[key].stride() == tensor.stride()
        assert torch.equal(got[key], tensor)


def test_all_that_training_puts_beside_tensors_is_read(tmp_path: Path) -> None:
    tied = torch.nn.Parameter(torch.ones(3, 2))
    network = torch.nn.Linear(2, 3)
    value = {
        "tied": tied,
        "head": tied,
        "network": network.state_dict(),
        "epoch": 3,
        "loss": 0.5,
        "done": True,
        "name": "flow",
        "steps": [1, 2**40, None],
        "optimizer": {"state": {0: {"size": torch.Size([3, 2])}}, "groups": [("a", 1)]},
        "ordered": OrderedDict(a=torch.zeros(2)),
    }
    got = read_torch_file(saved(tmp_path, value))
    assert torch.equal(got["network"]["weight"], network.weight)
    assert got["tied"].data_ptr() == got["head"].data_ptr()
    for key in ("epoch", "loss", "done", "name", "steps", "optimizer"):
        assert got[key] == value[key]
    assert not got["tied"].requires_grad


def test_a_repacked_file_is_read(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.arange(5.0)})
    packed(path, entries_of(path))  # storages at odd places
    assert torch.equal(read_torch_file(path)["a"], torch.arange(5.0))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2).to_sparse(),
        torch.ones(2, 2).to_sparse_csr(),
        torch.ones(2, device="meta"),
        torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        torch.ones(2, dtype=torch.complex64).conj(),
        torch.ones(2, dtype=torch.complex64).conj().imag,  # a negative view
    ],
)
def test_tensors_of_another_form_are_named_and_not_built(
    tmp_path: Path, tensor: torch.Tensor
) -> None:
    try:
        found = read_torch_file(saved(tmp_path, {"a": tensor}))["a"]
    except TorchFileError as error:
        assert "unknown kind" in str(error)  # quantized numbers have storages of their own
    else:
        assert found == OtherTensor("not stored as a plain dense tensor")


def nested_key(depth: int) -> bytes:
    """A dict whose key is a tuple of itself twice, `depth` deep: 2^depth hashes for a dict."""
    pair = b"h\x00h\x00\x86q\x00"
    return b"\x80\x02}(K\x01\x85q\x00" + pair * depth + b"K\x01u."


@pytest.mark.parametrize(
    "content",
    [
        nested_key(60),
        b"\x80\x02}(NK\x01u.",
        b"\x80\x02}(G\x00\x00\x00\x00\x00\x00\x00\x00K\x01u.",
        b"cos\nsystem\n(S'true'\ntR.",
        b"\x80\x02cos\nsystem\n.",
        b"\x80\x02ctorch\nload\nX\x01\x00\x00\x00a\x85R.",
        b"\x80\x02ctorch._utils\nNone\n)R.",
        b"\x80\x02}X\x01\x00\x00\x00aQ.",
        b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
        b"\x80\x02K\x01" + b"2" * 1000 + b".",  # DUP
        b"\x80\x02(K\x01)R.",
    ],
)
def test_a_program_that_is_no_state_dict_is_refused_and_not_followed(
    tmp_path: Path, content: bytes
) -> None:
    path = program(saved(tmp_path, {}), content)
    text = refusal(path)
    assert "holds Python objects besides tensors" in text or "is damaged" in text


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\x89c", b"Nc"),  # requires_grad
        (b"\x89c", b"K\x05c"),
        (b"ccollections\nOrderedDict\nq\n)R", b"N"),  # hooks
        (b"tq\x0c", b"NNtq\x0c"),  # one argument more
        (b"K\x04\x85q\x08", b"Nq\x08"),  # the shape
        (b"K\x04\x85q\x08", b"J\xff\xff\xff\xff\x85q\x08"),
        (b"K\x01\x85q\t", b")q\t"),  # the stride
        (b"QK\x00", b"QM\xff\xff"),  # the offset
        (b"QK\x00", b"QJ\xff\xff\xff\xff"),
    ],
)
def test_a_tensor_made_in_another_way_than_torch_writes_is_refused(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = saved(tmp_path, {"a": torch.ones(4)})
    good = entries_of(path)["a/data.pkl"]
    assert old in good
    refusal(program(path, good.replace(old, new)))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02" + b"N" * (MAX_BYTES // 2) + b".",
        b"\x80\x02]" + b"NNN\x87a" * 500_000 + b".",
        b"\x80\x02" + b"(" * 900_000 + b".",
        b"\x80\x02X\xff\xff\xff\x7fa.",
        b"\x80\x02" + b"N" * MAX_BYTES + b".",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 1000 + b".",
        b"I" + b"9" * 4_000_000 + b"\n.",
        b"\x80\x02q\x00.",
        b"\x80\x02R.",
        b"\x80\x05}.",
        b"",
        b".",
        b"\x80\x02}",
    ],
)
def test_a_program_without_end_or_sense_is_refused_soon(tmp_path: Path, content: bytes) -> None:
    refusal(program(saved(tmp_path, {}), content))


def test_compressed_entries_are_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.zeros(1 << 22)})
    packed(path, entries_of(path), compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "is compressed" in refusal(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(1).expand(1 << 32),
        torch.ones(1, 4).expand(1 << 20, 4),
        torch.ones(8).as_strided((7, 7), (1, 0)),
        torch.arange(16.0).as_strided((9, 8), (1, 1)),
    ],
)
def test_tensors_larger_than_their_storage_are_refused(
    tmp_path: Path, tensor: torch.Tensor
) -> None:
    assert "expanded tensors are not read" in refusal(saved(tmp_path, {"a": tensor}))


def test_many_views_of_one_storage_are_refused_and_a_few_are_not(tmp_path: Path) -> None:
    numbers = torch.ones(1 << 20)
    views = {f"a{index}": numbers.view(1, -1)[0] for index in range(100)}
    assert "together a multiple of the file" in refusal(saved(tmp_path, views))
    read_torch_file(saved(tmp_path, {"embed": numbers, "head": numbers}))


def test_storages_that_are_missing_or_of_another_length_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(4)})
    good = entries_of(path)
    packed(path, {name: content for name, content in good.items() if name != "a/data/0"})
    assert "lacks the numbers 0" in refusal(path)
    for length in (0, 15, 17, 32):
        packed(path, good | {"a/data/0": bytes(length)})
        assert f"take {length} bytes, not 16" in refusal(path)


def test_big_endian_files_and_unknown_numbers_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(4)})
    good = entries_of(path)
    packed(path, good | {"a/byteorder": b"big"})
    assert "other byte order" in refusal(path)
    swapped = good["a/data.pkl"].replace(b"FloatStorage", b"QInt8Storage")
    packed(path, good | {"a/data.pkl": swapped})
    assert "unknown kind QInt8" in refusal(path)


def test_a_storage_s_device_is_one_that_torch_has(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(4)})
    good = entries_of(path)
    assert good["a/data.pkl"].count(b"X\x03\0\0\0cpu") == 1

    def on(device: bytes) -> Path:
        written = b"X" + struct.pack("<L", len(device)) + device
        changed = good["a/data.pkl"].replace(b"X\x03\0\0\0cpu", written)
        return packed(path, good | {"a/data.pkl": changed})

    for device in (b"cuda:0", b"cuda:15", b"mps", b"npu:7"):  # where it was trained
        assert read_torch_file(on(device))["a"].tolist() == [1.0] * 4
    for device in (b"cps", b"", b"meta", b"cpu:", b"cuda:0 "):
        refusal(on(device))


def test_zip_files_that_two_readers_would_read_differently_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(4)})
    good = path.read_bytes()
    table = good.rindex(b"PK\x01\x02")
    damages = {
        "an end record that is not last": good + b"PK",
        "a comment": good[:-2] + b"\x01\x00a",
        "a prefix": b"PK\x03\x04" + good,
        "another name in the entry's own header": good.replace(b"data.pkl", b"data.pkk", 1),
        "an entry beyond the file": good[: table + 42] + b"\xf0\xff\xff\xff" + good[table + 46 :],
        "a flag for encryption": good[: table + 8] + b"\x01\x00" + good[table + 10 :],
        "no table": good[: good.index(b"PK\x01\x02")] + good[-22:],
        "several programs": b"",
    }
    for name, content in damages.items():
        path.write_bytes(content)
        if name == "several programs":
            saved(tmp_path, {})
            packed(path, entries_of(path) | {"b/data.pkl": b"\x80\x02}."})
        refusal(path)


def test_a_table_of_contents_is_bounded_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    with path.open("wb") as file:
        file.write(b"PK\x03\x04")
        file.truncate(1 << 30)  # a hole: takes no disk
        file.seek(0, 2)
        file.write(b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 60000, 60000, 1 << 30, 0, 0))
    assert "table of contents has 60000 entries in 1073741824 bytes" in refusal(path)


def test_two_entries_on_the_same_bytes_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"a": torch.ones(4), "b": torch.ones(4)})
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        first, second = (archive.getinfo(f"a/data/{key}") for key in "01")
    row = content.rindex(b"a/data/1") - 46
    assert struct.unpack_from("<L", content, row + 42)[0] == second.header_offset
    struct.pack_into("<L", content, row + 42, first.header_offset)
    content = content.replace(b"a/data/1", b"a/data/0")
    path.write_bytes(content)
    assert "twice" in refusal(path)


def test_a_file_changed_in_its_list_of_tensors_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path, {"weight": torch.ones(4)})
    path.write_bytes(path.read_bytes().replace(b"weight", b"height"))
    assert "its list of tensors was changed" in refusal(path)


def test_nothing_that_a_pickle_names_is_run(tmp_path: Path) -> None:
    marker = tmp_path / "was-run"

    class Runs:
        def __reduce__(self) -> Any:
            return open, (str(marker), "w")

    assert "holds Python objects" in refusal(saved(tmp_path, {"a": Runs()}))
    assert not marker.exists()
    buffer = io.BytesIO()
    pickle.dump({"a": Runs()}, buffer, protocol=2)
    path = saved(tmp_path, {})
    assert "holds Python objects" in refusal(program(path, buffer.getvalue()))
    assert not marker.exists()


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    assert "is not a file" in refusal(tmp_path)
    assert "can't be read" in refusal(tmp_path / "none.pt")
    (tmp_path / "empty.pt").write_bytes(b"")
    assert "is not a PyTorch file" in refusal(tmp_path / "empty.pt")


def test_a_table_of_contents_in_64_bits_is_read(tmp_path: Path) -> None:
    """As in files over 4 GB: every number of 32 bits says that the true one is elsewhere."""
    path = saved(tmp_path, {"a": torch.arange(5.0)})
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        infos, place = archive.infolist(), archive.start_dir
    rows = b""
    for info in infos:
        wide = struct.pack("<2H3Q", 1, 24, info.file_size, info.file_size, info.header_offset)
        name, full = info.filename.encode(), 0xFFFFFFFF
        rows += b"PK\x01\x02" + struct.pack(
            *("<6H3L5H2L", 45, 45, 0, 0, 0, 0, info.CRC, full, full),
            *(len(name), len(wide), 0, 0, 0, 0, full),
        )
        rows += name + wide
    count, end = len(infos), place + len(rows)
    record = struct.pack("<Q2H2L4Q", 44, 45, 45, 0, 0, count, count, len(rows), place)
    tail = b"PK\x06\x06" + record + b"PK\x06\x07" + struct.pack("<LQL", 0, end, 1)
    tail += b"PK\x05\x06" + struct.pack("<4H2LH", 0, 0, 65535, 65535, full, full, 0)
    path.write_bytes(content[:place] + rows + tail)
    assert torch.equal(read_torch_file(path)["a"], torch.arange(5.0))
