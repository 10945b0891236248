"""Writing bundles and single files: whole or absent, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.bundle_examples import DRAFT, finish, graph_of, located, make_bundle, tensor

from cosyvoice_cpu.bundle import (
    BundleWriter,
    open_bundle,
    write_file_atomically,
)
from cosyvoice_cpu.errors import BundleError, ManifestError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and modes")


@pytest.fixture(autouse=True)
def private_cache(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSYVOICE_CPU_CACHE", str(tmp_path_factory.mktemp("cache")))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refusal(path: Path, overwrite: bool = False, needed_bytes: int = 0) -> tuple[str, str]:
    with pytest.raises(BundleError) as refused, BundleWriter(path, overwrite, needed_bytes):
        pass
    return refused.value.what, refused.value.hint


def test_a_finished_bundle_opens_and_nothing_else_is_left(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "voice") as writer:
        writer.path_for("vocoder", "w.bin").write_bytes(bytes(64))
        writer.path_for("vocoder", "a.onnx").write_bytes(graph_of(tensor()))
        (writer.speakers_folder() / "anna.safetensors").write_bytes(b"x")
        manifest = finish(writer)
        assert names(tmp_path) == ["voice"]
    assert open_bundle(tmp_path / "voice").manifest == manifest
    assert [entry.path for entry in manifest.components["vocoder"].files] == [
        "vocoder/a.onnx",
        "vocoder/w.bin",
    ]
    assert names(tmp_path) == ["voice"]
    assert names(tmp_path / "voice") == ["manifest.json", "speakers", "vocoder"]


def test_a_copied_component_is_the_same_in_the_new_bundle(tmp_path: Path) -> None:
    old = open_bundle(make_bundle(tmp_path / "voice"))
    with BundleWriter(tmp_path / "copy") as writer:
        assert writer.copy_component(old, "vocoder") == DRAFT
        finish(writer)
    new = open_bundle(tmp_path / "copy")
    assert new.component("vocoder") == old.component("vocoder")
    assert new.file("vocoder", "w.bin").read_bytes() == old.file("vocoder", "w.bin").read_bytes()


def test_an_existing_bundle_is_kept_unless_overwrite_is_asked_for(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice")
    assert refusal(bundle) == (f"{bundle} exists", "give another name, or --overwrite")
    with BundleWriter(bundle, overwrite=True) as writer:
        writer.path_for("vocoder", "new.bin").write_bytes(b"new")
        finish(writer)
    assert names(bundle / "vocoder") == ["new.bin"]
    assert names(tmp_path) == ["voice"]


def test_a_folder_that_is_no_bundle_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "manifest.json").write_text("{}")
    path = tmp_path / "photos"
    assert refusal(path, overwrite=True) == (
        f"{path} exists and is not a bundle, so it is not overwritten",
        "give another name, or remove it yourself",
    )
    assert names(tmp_path / "photos") == ["manifest.json"]


def test_a_file_in_the_way_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "voice").write_text("text")
    assert "is not a bundle" in refusal(tmp_path / "voice", overwrite=True)[0]


def test_an_empty_folder_may_become_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "voice").mkdir()
    make_bundle(tmp_path / "voice")
    assert names(tmp_path) == ["voice"]


def test_a_missing_parent_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "voice"
    assert refusal(path) == (
        f"{path} can't be written: there is no folder {path.parent}",
        "create the folder first",
    )


def test_a_disk_that_is_too_small_is_noticed_before_any_work(tmp_path: Path) -> None:
    what, hint = refusal(tmp_path / "voice", needed_bytes=10**18)
    assert what.startswith(f"{tmp_path}/voice needs 1000000000000.0 MB, ")
    assert what.endswith(" MB are free on its disk")
    assert hint == "free some space, or choose another place"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_one_plain_error(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError) as refused,
        BundleWriter(tmp_path / "voice", needed_bytes=2_000_000) as writer,
    ):
        writer.path_for("vocoder", "w.bin").write_bytes(bytes(1_000_000))
        Path("/dev/full").write_bytes(b"x")
    assert refused.value.what == (
        f"{tmp_path}/voice can't be written: the disk was full after 1.0 MB of 2.0 MB"
    )
    assert names(tmp_path) == []


def test_an_error_in_the_block_leaves_nothing_and_is_passed_on(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        BundleWriter(tmp_path / "voice") as writer,
    ):
        writer.path_for("vocoder", "w.bin").write_bytes(b"x")
        raise ZeroDivisionError
    assert names(tmp_path) == []


def test_an_error_while_overwriting_leaves_the_old_bundle(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice")
    with (
        pytest.raises(BundleError, match="which is not listed in the graph's folder"),
        BundleWriter(bundle, overwrite=True) as writer,
    ):
        writer.path_for("vocoder", "a.onnx").write_bytes(graph_of(located(location="gone.bin")))
        finish(writer)
    open_bundle(bundle)
    assert names(tmp_path) == ["voice"]


def test_a_block_that_never_finishes_makes_no_bundle(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "voice") as writer:
        writer.path_for("vocoder", "w.bin").write_bytes(b"x")
    assert names(tmp_path) == []


def test_a_component_without_files_is_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError, match=r"^component vocoder has no file$"),
        BundleWriter(tmp_path / "voice") as writer,
    ):
        finish(writer)


def test_files_of_a_component_that_was_not_given_are_an_error(tmp_path: Path) -> None:
    with (
        pytest.raises(BundleError) as refused,
        BundleWriter(tmp_path / "voice") as writer,
    ):
        writer.path_for("vocoder", "w.bin").write_bytes(b"x")
        writer.path_for("speech_lm", "w.bin").write_bytes(b"x")
        finish(writer)
    assert refused.value.what == (
        "speech_lm is in the new bundle but in no component given to `finish`"
    )


def test_two_files_that_differ_in_case_only_are_not_written(tmp_path: Path) -> None:
    with (
        pytest.raises(ManifestError),
        BundleWriter(tmp_path / "voice") as writer,
    ):
        writer.path_for("vocoder", "w.bin").write_bytes(b"x")
        writer.path_for("vocoder", "W.bin").write_bytes(b"x")
        finish(writer)
    assert names(tmp_path) == []


def test_an_unknown_component_is_named(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "voice") as writer, pytest.raises(BundleError) as refused:
        writer.path_for("decoder", "a")  # type: ignore[arg-type]
    assert refused.value.what == "unknown component 'decoder'"


def test_two_writers_of_one_name_do_not_mix_and_the_second_is_refused(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "voice") as first, BundleWriter(tmp_path / "voice") as second:
        first.path_for("vocoder", "first.bin").write_bytes(b"1")
        second.path_for("vocoder", "second.bin").write_bytes(b"2")
        finish(first)
        with pytest.raises(BundleError, match=r"voice exists$"):
            finish(second)
    assert names(tmp_path / "voice" / "vocoder") == ["first.bin"]
    assert names(tmp_path) == ["voice"]


@posix
def test_a_bundle_has_the_modes_that_the_umask_asks_for(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        bundle = make_bundle(tmp_path / "voice")
        write_file_atomically(tmp_path / "out.wav", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o750
    assert stat.S_IMODE((bundle / "manifest.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "out.wav").stat().st_mode) == 0o640


WRITING = """
import sys, time
from pathlib import Path
from cosyvoice_cpu.bundle import BundleWriter
with BundleWriter(Path(sys.argv[1])) as writer:
    writer.path_for("vocoder", "w.bin").write_bytes(b"x")
    print("writing", flush=True)
    time.sleep(60)
"""


def interrupted(path: Path, number: int) -> int:
    """The exit code of a process that is sent a signal while it writes a bundle."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    assert len(names(path.parent)) == 1
    process.send_signal(number)
    code = process.wait(30)
    process.stdout.close()
    return code


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_writer_leaves_nothing(tmp_path: Path, number: int) -> None:
    assert interrupted(tmp_path / "voice", number) != 0
    assert names(tmp_path) == []


@posix
def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    interrupted(tmp_path / "voice", signal.SIGKILL)
    (left,) = names(tmp_path)
    assert left.startswith(".voice.partial-")
    make_bundle(tmp_path / "other")
    assert names(tmp_path) == [left, "other"]
    make_bundle(tmp_path / "voice")
    assert names(tmp_path) == ["other", "voice"]


@posix
def test_what_a_living_writer_builds_is_left_alone(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "voice") as first:
        first.path_for("vocoder", "w.bin").write_bytes(b"x")
        process = subprocess.run(
            [sys.executable, "-c", WRITING.replace("time.sleep(60)", ""), str(tmp_path / "voice")],
            check=True,
            capture_output=True,
        )
        assert process.stdout == b"writing\n"
        finish(first)
    open_bundle(tmp_path / "voice")


@posix
def test_a_bundle_caught_between_two_renames_comes_back(tmp_path: Path) -> None:
    bundle = make_bundle(tmp_path / "voice")
    finished = subprocess.Popen([sys.executable, "-c", ""])
    finished.wait(30)
    bundle.rename(tmp_path / f".voice.replaced-{finished.pid}-0123abcd")
    (tmp_path / f".voice.partial-{finished.pid}-0123abcd").mkdir()
    assert refusal(bundle)[0] == f"{bundle} exists"
    open_bundle(bundle)
    assert names(tmp_path) == ["voice"]


@posix
def test_the_program_s_own_handler_of_sigterm_stays(tmp_path: Path) -> None:
    def own(number: int, frame: object) -> None: ...

    before = signal.signal(signal.SIGTERM, own)
    try:
        with BundleWriter(tmp_path / "voice"):
            assert signal.getsignal(signal.SIGTERM) is own
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with BundleWriter(tmp_path / "voice"):
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_bundle_may_be_written_by_another_thread(tmp_path: Path) -> None:
    thread = threading.Thread(target=make_bundle, args=(tmp_path / "voice",))
    thread.start()
    thread.join()
    open_bundle(tmp_path / "voice")
