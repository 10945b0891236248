"""ONNX external data: one test per weakness published from 2022 to 2026, then the reader itself.

Advisories: CVE-2022-25882, CVE-2024-27318, CVE-2025-51480, CVE-2026-27489, CVE-2026-34445,
CVE-2026-34446, CVE-2026-34447 and CVE-2026-49114 for onnx; ONNX Runtime pull requests 26776, 28408,
28709 and 29011, which have no number. CVE-2024-27319 (a string copy in ONNX_ASSERT), CVE-2024-5187
and CVE-2024-7776 (archives unpacked on download) are not about external data, and their code has no
counterpart here.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundle_examples import (
    LOCATED,
    WEIGHTS,
    edit_manifest,
    field,
    finish,
    graph_of,
    located,
    make_bundle,
    node,
    tensor,
    varint,
)

from cosyvoice_cpu.bundle import BundleWriter, open_bundle, write_file_atomically
from cosyvoice_cpu.bundle import atomic as atomic_module
from cosyvoice_cpu.bundle import writer as writer_module
from cosyvoice_cpu.bundle.onnx_scan import _BITS, ExternalTensor, scan_onnx
from cosyvoice_cpu.errors import BundleError, OutputError

FILES = {"vocoder.onnx": 200, "w.bin": len(WEIGHTS)}


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))


def scanned(path: Path, content: bytes) -> list[ExternalTensor]:
    path.write_bytes(content)
    return scan_onnx(path, FILES)


def refusal(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "vocoder.onnx"
    with pytest.raises(BundleError) as refused:
        scanned(path, content)
    assert refused.value.hint
    assert refused.value.what.startswith(str(path))
    return refused.value.what.removeprefix(str(path)).removeprefix(": ")


def location_refusal(tmp_path: Path, location: str, reason: str) -> None:
    found = refusal(tmp_path, graph_of(located(location=location)))
    assert found == f"tensor 'w' has the external data {location!r}, which {reason}"


def test_cve_2022_25882_a_location_outside_the_folder_is_refused(tmp_path: Path) -> None:
    location_refusal(tmp_path, "../../../etc/passwd", "has the part '..'")
    location_refusal(tmp_path, "/etc/passwd", "is absolute")


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        ("sub/../../../etc/passwd", "has the part '..'"),
        ("./../w.bin", "has the part '.'"),
        ("sub/./w.bin", "has the part '.'"),
        ("sub//w.bin", "has the part ''"),
        ("..\\..\\w.bin", "has the character '\\\\'"),
        ("C:\\w.bin", "has the character ':'"),
        ("w.bin\x00.txt", "has a control character"),
        ("sub/w.bin", "is in another folder"),
        ("../vocoder/w.bin", "has the part '..'"),
    ],
)
def test_cve_2024_27318_no_spelling_of_a_location_gets_around_the_check(
    tmp_path: Path, location: str, reason: str
) -> None:
    location_refusal(tmp_path, location, reason)


def test_cve_2025_51480_a_bundle_is_not_written_to_the_places_that_a_graph_names(
    tmp_path: Path,
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    with (
        pytest.raises(BundleError, match=r"which has the part '\.\.'$"),
        BundleWriter(tmp_path / "voice") as writer,
    ):
        writer.path_for("vocoder", "vocoder.onnx").write_bytes(
            graph_of(located(location="../../victim"))
        )
        finish(writer)
    assert victim.read_bytes() == b"precious"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["victim"]


@pytest.mark.parametrize("name", ["../victim", "/victim", "sub/victim", "..", "a\\b"])
def test_cve_2025_51480_no_file_name_leads_the_writer_out_of_the_bundle(
    tmp_path: Path, name: str
) -> None:
    with (
        BundleWriter(tmp_path / "voice") as writer,
        pytest.raises(BundleError, match=r"^the path 'vocoder/"),
    ):
        writer.path_for("vocoder", name)


def test_cve_2026_27489_and_34447_a_symbolic_link_in_place_of_a_file_is_refused(
    tmp_path: Path,
) -> None:
    bundle = make_bundle(tmp_path / "voice")
    weights = bundle / "vocoder" / "w.bin"
    weights.rename(tmp_path / "outside")
    weights.symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError) as refused:
        open_bundle(bundle, trust=True)
    assert refused.value.what == f"{weights} is a symbolic link"
    assert refused.value.hint == "copy the bundle with its links followed (cp -rL)"


def test_cve_2026_27489_a_symbolic_link_in_place_of_a_parent_folder_is_refused(
    tmp_path: Path,
) -> None:
    bundle = make_bundle(tmp_path / "voice")
    (bundle / "vocoder").rename(tmp_path / "outside")
    (bundle / "vocoder").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(BundleError) as refused:
        open_bundle(bundle, trust=True)
    assert refused.value.what == f"{bundle / 'vocoder'} is a symbolic link"


def test_cve_2026_34446_a_hard_link_is_refused(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice")
    weights = bundle / "vocoder" / "w.bin"
    os.link(weights, tmp_path / "second-name")
    with pytest.raises(BundleError) as refused:
        open_bundle(bundle, trust=True)
    assert refused.value.what == f"{weights} is a hard link (the file has 2 names)"
    assert refused.value.hint == "copy the bundle with its files duplicated (cp -r)"


@pytest.mark.parametrize("key", ["__class__", "basepath", "Location", "prepacked", ""])
def test_cve_2026_34445_a_key_that_is_not_of_the_format_is_refused(
    tmp_path: Path, key: str
) -> None:
    found = refusal(tmp_path, graph_of(tensor((*LOCATED, (key, "1")))))
    assert found == f"tensor 'w' has the external_data key {key!r}"


def test_cve_2026_49114_a_planted_link_is_not_written_through(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    monkeypatch.setattr(atomic_module, "partial_name", lambda name: ".planted")
    (tmp_path / ".planted").symlink_to(victim)
    with pytest.raises(OutputError):
        write_file_atomically(tmp_path / "speaker.safetensors", b"new")
    assert victim.read_bytes() == b"precious"


def test_cve_2026_49114_a_planted_folder_is_not_built_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "partial_name", lambda name: ".planted")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".planted").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleError), BundleWriter(tmp_path / "voice"):
        pass
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("tag", ["*/_ORT_MEM_ADDR_/*", "*/_ORT_MEM_ADDR_LITTLE_ENDIAN_/*"])
def test_an_address_in_the_memory_of_the_process_is_refused(tmp_path: Path, tag: str) -> None:
    """ONNX Runtime pull requests 28709 and 29011."""
    location_refusal(tmp_path, tag, "points into the memory of the process")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": "1"}, "takes bytes 1 to 65 of 'w.bin', which has 64"),
        ({"offset": "9" * 19}, f"takes bytes {'9' * 19} to {10**19 + 63} of 'w.bin', which has 64"),
        ({"length": "65"}, "takes bytes 0 to 65 of 'w.bin', which has 64"),
        ({"length": "60"}, "has 60 bytes of external data, not 64"),
        ({"offset": "-8"}, "has the offset '-8'"),
        ({"offset": "0x10"}, "has the offset '0x10'"),
        ({"offset": "1e1"}, "has the offset '1e1'"),
        ({"offset": " 0"}, "has the offset ' 0'"),
        ({"offset": "٣"}, "has the offset '٣'"),
        ({"offset": "9" * 20}, f"has the offset '{'9' * 20}'"),
        ({"length": ""}, "has the length ''"),
    ],
)
def test_data_outside_its_file_is_refused(
    tmp_path: Path, changes: dict[str, str], message: str
) -> None:
    """Offsets read past the end, or written far beyond it (ONNX pull request 8260)."""
    assert refusal(tmp_path, graph_of(located(**changes))) == f"tensor 'w' {message}"


def test_a_tensor_larger_than_its_file_is_refused_even_without_a_length(tmp_path: Path) -> None:
    found = refusal(tmp_path, graph_of(tensor((("location", "w.bin"),), dims=(2**40, 2**40))))
    assert found == f"tensor 'w' takes bytes 0 to {2**82} of 'w.bin', which has 64"


def test_a_checksum_in_a_graph_does_not_replace_the_digest_in_the_manifest(tmp_path: Path) -> None:
    """No ONNX reader checks this key; the digest of the whole file is what counts here."""
    entries = (*LOCATED, ("checksum", "0" * 40))
    files = {"vocoder.onnx": graph_of(tensor(entries)), "w.bin": WEIGHTS}
    bundle = make_bundle(tmp_path / "voice", files)
    open_bundle(bundle)
    (bundle / "vocoder" / "w.bin").write_bytes(bytes(64))
    with pytest.raises(BundleError, match=r"w\.bin does not match its manifest entry"):
        open_bundle(bundle)


ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
BAD = located(location="../x")


def inner_graph(initializer: bytes) -> bytes:
    return field(5, initializer)


HIDING_PLACES: dict[str, bytes] = {
    "an initializer": graph_of(BAD),
    "the second initializer": graph_of(tensor(), BAD),
    "the values of a sparse initializer": graph_of(content=field(15, field(1, BAD))),
    "the indices of a sparse initializer": graph_of(content=field(15, field(2, BAD))),
    "a constant": graph_of(content=field(1, node(field(5, BAD)))),
    "a list of tensors": graph_of(content=field(1, node(field(10, BAD)))),
    "a sparse constant": graph_of(content=field(1, node(field(22, field(1, BAD))))),
    "a list of sparse constants": graph_of(content=field(1, node(field(23, field(2, BAD))))),
    "a branch": graph_of(content=field(1, node(field(6, field(5, BAD))))),
    "a list of branches": graph_of(content=field(1, node(field(11, field(5, BAD))))),
    "a branch of a branch": graph_of(
        content=field(1, node(field(6, field(1, node(field(6, field(5, BAD)))))))
    ),
    "a function": graph_of() + field(25, field(7, node(field(5, BAD)))),
    "a default of a function": graph_of() + field(25, field(11, field(5, BAD))),
    "the initialization of training": graph_of() + field(20, field(1, field(5, BAD))),
    "the training step": graph_of() + field(20, field(2, field(5, BAD))),
}


@pytest.mark.parametrize("place", HIDING_PLACES)
def test_external_data_is_found_wherever_a_graph_can_hold_a_tensor(
    tmp_path: Path, place: str
) -> None:
    """ONNX Runtime pull requests 28408 (sparse tensors) and 29011 (constants)."""
    assert refusal(tmp_path, HIDING_PLACES[place]) == (
        "tensor 'w' has the external data '../x', which has the part '..'"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tensor(location=None), "is external in one field and inline in another"),
        (tensor(location=0), "is external in one field and inline in another"),
        (tensor(location=2), "is external in one field and inline in another"),
        (tensor(()), "is external in one field and inline in another"),
        (tensor(extra=field(9, bytes(64))), "has both inline and external data"),
        (tensor(extra=field(4, bytes(4))), "has both inline and external data"),
        (tensor((*LOCATED, LOCATED[0])), "has the external_data key 'location' twice"),
        (tensor(LOCATED[1:]), "has the external data '', which has the part ''"),
        (located(location="other.bin"), None),
        (located(location="W.BIN"), None),
        (tensor(data_type=8), "is external and has the data type 8"),
        (tensor(data_type=99), "is external and has the data type 99"),
        (tensor(dims=(2**64 - 1,)), "has a shape that no tensor has"),
        (tensor(dims=[1] * 33), "has a shape that no tensor has"),
    ],
)
def test_a_reference_that_readers_could_understand_differently_is_refused(
    tmp_path: Path, content: bytes, message: str | None
) -> None:
    found = refusal(tmp_path, graph_of(content))
    expected = message or "which is not listed in the graph's folder"
    assert found.startswith("tensor 'w' ") and found.endswith(expected)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (field(1, 9), "it holds no graph"),
        (graph_of() + field(7, b""), "field 7 of ModelProto is given twice"),
        (
            graph_of(content=field(1, node(field(5, tensor()) + field(5, BAD)))),
            "field 5 of AttributeProto is given twice",
        ),
        (graph_of(tensor(extra=field(14, 0))), "field 14 of TensorProto is given twice"),
        (graph_of()[:-1], "the field at byte 4 is longer than what holds it"),
        (field(7, 1), "field 7 is not a message"),
        (b"\x3b" + graph_of(), "wire type 3 before byte 1"),
        (b"\x00\x00" + graph_of(), "field number 0 before byte 1"),
        (b"\x08" + b"\xff" * 11, "the number before byte 11 does not end within 64 bits"),
        (b"\x08\x80", "the number before byte 2 does not end within 64 bits"),
        (graph_of(tensor(extra=field(13, field(1, b"\xff")))), None),
        (graph_of(tensor(extra=field(13, field(1, "a") + field(1, "b")))), None),
        (graph_of(tensor(extra=field(13, field(1, "a" * 70000)))), None),
    ],
)
def test_bytes_that_are_no_graph_are_refused(
    tmp_path: Path, content: bytes, message: str | None
) -> None:
    found = refusal(tmp_path, content)
    assert found.startswith(" is not a valid ONNX graph: ")
    assert message is None or found.endswith(f": {message}")


def test_graphs_nested_without_end_are_refused(tmp_path: Path) -> None:
    content = b""
    for _ in range(40):
        content = field(1, node(field(6, content)))
    assert refusal(tmp_path, field(7, content)) == (
        " is not a valid ONNX graph: messages are nested over 64 deep"
    )


def test_external_tensors_are_reported_as_the_graph_has_them(tmp_path: Path) -> None:
    second = tensor((("location", "w.bin"), ("offset", "60")), dims=(), data_type=1)
    assert scanned(tmp_path / "vocoder.onnx", graph_of(tensor(), second)) == [
        ExternalTensor("w", "w.bin", 0, 64),
        ExternalTensor("w", "w.bin", 60, 4),
    ]


def test_dims_may_be_packed_or_not(tmp_path: Path) -> None:
    packed = field(1, varint(4) + varint(4))
    content = graph_of(tensor(dims=(), extra=packed))
    assert scanned(tmp_path / "vocoder.onnx", content)[0].length == 64


def test_inline_tensors_need_nothing(tmp_path: Path) -> None:
    content = graph_of(tensor((), location=None, extra=field(9, bytes(64))))
    assert scanned(tmp_path / "vocoder.onnx", content) == []


def test_graphs_of_the_onnx_package_are_read_as_it_reads_them(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    weights = {f"w{index}": np.ones((index + 1, 3), np.float32) for index in range(5)}
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Identity", ["b"], ["y"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(np.ones(7, np.float16), "b")],
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)],
        "g",
        [onnx.helper.make_tensor_value_info("c", 9, [])],
        [onnx.helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    path = tmp_path / "vocoder.onnx"
    onnx.save_model(
        onnx.helper.make_model(graph),
        str(path),
        save_as_external_data=True,
        location="w.bin",
        size_threshold=0,
    )
    size = (tmp_path / "w.bin").stat().st_size
    found = {one.name: one for one in scan_onnx(path, {"w.bin": size})}
    for name, value in weights.items():
        assert found[name].length == value.nbytes
    assert found["b"].length == 14


def test_the_bits_per_element_agree_with_the_onnx_package() -> None:
    onnx = pytest.importorskip("onnx")
    packed = {"UINT4": 4, "INT4": 4, "FLOAT4E2M1": 4, "UINT2": 2, "INT2": 2}
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    for number in _BITS.keys() & names.keys():
        itemsize = onnx.helper.tensor_dtype_to_np_dtype(number).itemsize
        assert _BITS[number] == packed.get(names[number], itemsize * 8), names[number]


@settings(max_examples=400)
@given(
    content=st.sampled_from(
        [graph_of(tensor()), graph_of(tensor(), tensor()), *HIDING_PLACES.values()]
    ),
    position=st.floats(0, 1),
    junk=st.binary(max_size=4),
    removed=st.integers(0, 6),
)
def test_a_damaged_graph_is_scanned_or_refused_and_never_breaks_the_scanner(
    tmp_path_factory: pytest.TempPathFactory,
    content: bytes,
    position: float,
    junk: bytes,
    removed: int,
) -> None:
    at = int(position * len(content))
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    try:
        found = scanned(path, content[:at] + junk + content[at + removed :])
    except BundleError:
        return
    for one in found:
        assert one.location in FILES
        assert 0 <= one.offset <= one.offset + one.length <= FILES[one.location]


def test_an_external_file_must_be_listed_with_its_own_size(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice")
    edit_manifest(bundle, "components.vocoder.files.1.size", 63)
    with pytest.raises(BundleError, match=r"w\.bin has 64 bytes, expected 63$"):
        open_bundle(bundle, trust=True)
