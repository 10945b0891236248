"""Opening a bundle: what is refused, what is not checked twice, and that nothing is written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.bundle_examples import WEIGHTS, edit_manifest, graph_of, make_bundle, tensor

from cosyvoice_cpu.bundle import open_bundle
from cosyvoice_cpu.errors import BundleError, ManifestError

COPY_AGAIN = "copy the bundle again, or rebuild it with `cosyvoice-cpu export`"


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


def test_a_bundle_tells_where_its_files_are(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert opened.path == bundle.resolve()
    assert opened.file("vocoder", "w.bin").read_bytes() == WEIGHTS
    assert opened.speakers_folder == bundle.resolve() / "speakers"
    assert opened.component("vocoder").shapes.sizes == [256, 512]


def test_only_listed_files_and_components_can_be_asked_for(bundle: Path) -> None:
    opened = open_bundle(bundle)
    with pytest.raises(BundleError) as refused:
        opened.file("vocoder", "../manifest.json")
    assert refused.value.what == f"{opened.path} lists no file vocoder/../manifest.json"
    with pytest.raises(BundleError) as refused:
        opened.file("speech_lm", "w.bin")
    assert refused.value.what == f"{opened.path} has no component speech_lm"


def test_a_bundle_may_be_opened_by_a_relative_path_and_through_a_link_to_it(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "latest").symlink_to(bundle, target_is_directory=True)
    monkeypatch.chdir(tmp_path)
    assert open_bundle(Path("latest")) == open_bundle(Path("voice")) == open_bundle(bundle)


def test_a_bundle_may_be_moved_and_copied(bundle: Path, tmp_path: Path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    bundle.rename(tmp_path / "moved")
    assert open_bundle(tmp_path / "copy").manifest == open_bundle(tmp_path / "moved").manifest


def test_a_missing_bundle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "nothing"
    hint = "make one with `cosyvoice-cpu export`"
    assert refusal(path) == (f"there is no bundle {path}", hint)


def test_a_bundle_that_an_overwrite_left_aside_is_pointed_to(bundle: Path, tmp_path: Path) -> None:
    aside = tmp_path / ".voice.replaced-1-00000000"
    bundle.rename(aside)
    what, hint = refusal(bundle)
    assert what == f"there is no bundle {bundle}"
    assert hint == f"an interrupted overwrite left it as {aside}; rename that back to voice"


def test_a_file_is_not_a_bundle(bundle: Path) -> None:
    path = bundle / "manifest.json"
    assert refusal(path)[0] == f"{path} is not a folder"


def test_a_folder_without_a_manifest_is_not_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(ManifestError) as refused:
        open_bundle(tmp_path)
    assert refused.value.what == f"{tmp_path} is not a bundle: it has no manifest.json"


def test_a_missing_file_is_named(bundle: Path) -> None:
    (bundle / "vocoder" / "w.bin").unlink()
    assert refusal(bundle, trust=True) == (f"{bundle}/vocoder/w.bin is missing", COPY_AGAIN)


def test_a_missing_component_folder_is_named(bundle: Path) -> None:
    shutil.rmtree(bundle / "vocoder")
    assert refusal(bundle, trust=True) == (f"{bundle}/vocoder is missing", COPY_AGAIN)


def test_a_truncated_file_is_named_with_both_sizes(bundle: Path) -> None:
    (bundle / "vocoder" / "w.bin").write_bytes(WEIGHTS[:-1])
    assert refusal(bundle, trust=True) == (
        f"{bundle}/vocoder/w.bin has 63 bytes, expected 64",
        COPY_AGAIN,
    )


def test_a_changed_file_of_the_same_size_is_named_with_both_digests(bundle: Path) -> None:
    (bundle / "vocoder" / "w.bin").write_bytes(bytes(64))
    assert refusal(bundle) == (
        f"{bundle}/vocoder/w.bin does not match its manifest entry"
        " (sha256 f5a5fd42d16a2030…, expected fdeab9acf3710362…)",
        COPY_AGAIN,
    )
    open_bundle(bundle, trust=True)


@pytest.mark.parametrize("folder", ["vocoder", "speech_lm"])
def test_an_unlisted_file_in_a_component_folder_is_named(bundle: Path, folder: str) -> None:
    (bundle / folder).mkdir(exist_ok=True)
    (bundle / folder / "extra.onnx").write_bytes(b"")
    assert refusal(bundle, trust=True) == (
        f"{bundle}/{folder}/extra.onnx is not listed in the manifest",
        "remove it, or copy the bundle again",
    )


def test_speakers_and_notes_beside_the_components_are_free(bundle: Path) -> None:
    (bundle / "speakers").mkdir()
    (bundle / "speakers" / "anna.safetensors").write_bytes(b"later")
    (bundle / "README.md").write_text("a voice")
    open_bundle(bundle)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(bundle: Path) -> None:
    weights = bundle / "vocoder" / "w.bin"
    weights.unlink()
    os.mkfifo(weights)
    assert refusal(bundle)[0] == f"{weights} is not a regular file"


def test_a_link_in_place_of_the_manifest_is_refused(bundle: Path, tmp_path: Path) -> None:
    manifest = bundle / "manifest.json"
    manifest.rename(tmp_path / "outside")
    manifest.symlink_to(tmp_path / "outside")
    assert refusal(bundle)[0] == f"{manifest} is a symbolic link"


def test_a_graph_with_any_spelling_of_its_extension_is_scanned(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice", {"a.txt": b"no graph"})
    (bundle / "vocoder" / "a.txt").rename(bundle / "vocoder" / "a.ONNX")
    edit_manifest(bundle, "components.vocoder.files.0.path", "vocoder/a.ONNX")
    assert "a.ONNX is not a valid ONNX graph" in refusal(bundle, trust=True)[0]


def test_opening_writes_nothing_to_a_read_only_bundle(bundle: Path) -> None:
    inside = [bundle, *bundle.rglob("*")]
    for path in inside:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = [(path, path.stat().st_mtime_ns) for path in inside]
    open_bundle(bundle)
    assert [(path, path.stat().st_mtime_ns) for path in [bundle, *bundle.rglob("*")]] == before
    for path in inside:
        path.chmod(0o755)


def test_several_processes_may_open_one_bundle_at_once(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cosyvoice_cpu.bundle import open_bundle\n"
        "for _ in range(20): open_bundle(Path(sys.argv[1]), recheck=True)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(bundle)]) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]


def test_the_bundle_needs_no_torch_and_no_onnx(bundle: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cosyvoice_cpu.bundle import open_bundle\n"
        "open_bundle(Path(sys.argv[1]))\n"
        "print([name for name in ('torch', 'onnx', 'onnxruntime') if name in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(bundle)], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"


def test_files_larger_than_one_chunk_are_hashed_whole(tmp_path: Path) -> None:
    content = os.urandom(3 * 2**20 + 5)
    files = {"a.onnx": graph_of(tensor((), location=None)), "b.bin": content, "c.bin": b""}
    bundle = make_bundle(tmp_path / "voice", files)
    open_bundle(bundle)
    (bundle / "vocoder" / "b.bin").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert "b.bin does not match its manifest entry" in refusal(bundle)[0]
