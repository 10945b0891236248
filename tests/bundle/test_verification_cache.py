"""The verification cache: what need not be hashed again, and when it is not relied on."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest
from support.bundle_examples import edit_manifest, make_bundle

from cosyvoice_cpu.bundle import open_bundle, verification_cache
from cosyvoice_cpu.bundle.verification_cache import state_of
from cosyvoice_cpu.errors import BundleError


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "voice")


def refusal(path: Path, **options: bool) -> tuple[str, str]:
    with pytest.raises(BundleError) as refused:
        open_bundle(path, **options)
    return refused.value.what, refused.value.hint


@pytest.fixture
def record(bundle: Path, private_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The bundle's record in the verification cache, in which its files were put at once."""
    monkeypatch.setattr(verification_cache, "_QUIET_NS", -(10**15))
    open_bundle(bundle)
    (path,) = (private_cache / "checked").iterdir()
    return path


def tamper_so_that_the_record_agrees(bundle: Path, record: Path) -> None:
    """Change a file and give the record its new times, as only the user's own hand can."""
    weights = bundle / "vocoder" / "w.bin"
    content = json.loads(record.read_text())
    digest = content["files"]["vocoder/w.bin"]["sha256"]
    weights.write_bytes(bytes(64))
    state = state_of(weights.stat(), digest)
    content["files"]["vocoder/w.bin"] = {
        name: getattr(state, name) for name in state.__struct_fields__
    }
    record.write_text(json.dumps(content))


def test_a_file_with_the_times_of_its_record_is_not_hashed_again_but_for_recheck(
    bundle: Path, record: Path
) -> None:
    tamper_so_that_the_record_agrees(bundle, record)
    open_bundle(bundle)
    assert "does not match its manifest entry" in refusal(bundle, recheck=True)[0]


@pytest.mark.usefixtures("record")
def test_a_graph_with_a_record_is_read_again_when_the_weights_beside_it_changed(
    bundle: Path,
) -> None:
    """Shorter weights with a manifest that fits them: only the graph tells what is wrong."""
    short = bytes(32)
    (bundle / "vocoder" / "w.bin").write_bytes(short)
    edit_manifest(bundle, "components.vocoder.files.1.size", len(short))
    edit_manifest(bundle, "components.vocoder.files.1.sha256", hashlib.sha256(short).hexdigest())
    assert "vocoder.onnx" in refusal(bundle)[0]


@pytest.mark.usefixtures("record")
def test_a_changed_file_is_hashed_again_even_if_its_time_is_set_back(bundle: Path) -> None:
    weights = bundle / "vocoder" / "w.bin"
    before = weights.stat()
    weights.write_bytes(bytes(64))
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "does not match its manifest entry" in refusal(bundle)[0]


@pytest.mark.usefixtures("record")
def test_a_record_does_not_vouch_for_a_manifest_with_other_digests(bundle: Path) -> None:
    edit_manifest(bundle, "components.vocoder.files.1.sha256", "ab" * 32)
    assert "does not match its manifest entry" in refusal(bundle)[0]


def test_a_file_written_this_second_is_not_recorded(bundle: Path, private_cache: Path) -> None:
    open_bundle(bundle)
    (record,) = (private_cache / "checked").iterdir()
    assert json.loads(record.read_text())["files"] == {}


@pytest.mark.skipif(sys.platform == "win32", reason="no modes")
def test_a_record_that_others_may_write_is_not_relied_on(bundle: Path, record: Path) -> None:
    tamper_so_that_the_record_agrees(bundle, record)
    record.chmod(0o666)
    assert "does not match its manifest entry" in refusal(bundle)[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"version": 2, "bundle": "", "files": {}}'])
def test_a_damaged_record_is_not_relied_on(bundle: Path, record: Path, text: str) -> None:
    record.write_text(text)
    open_bundle(bundle)
    (bundle / "vocoder" / "w.bin").write_bytes(bytes(64))
    assert "does not match its manifest entry" in refusal(bundle)[0]


def test_without_a_cache_folder_every_file_is_hashed_each_time(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verification_cache, "cache_folder", lambda: None)
    monkeypatch.setattr(verification_cache, "_QUIET_NS", -(10**15))
    open_bundle(bundle)
    (bundle / "vocoder" / "w.bin").write_bytes(bytes(64))
    assert "does not match its manifest entry" in refusal(bundle)[0]


def test_a_cache_that_can_not_be_written_changes_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path / "file"))
    open_bundle(bundle)
    open_bundle(bundle)
