"""Files written whole or not at all, and locks on folders."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import pytest

from cosyvoice_cpu.bundle import (
    folder_lock,
    write_file_atomically,
)
from cosyvoice_cpu.errors import OutputError

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals and modes")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def output_refusal(path: Path, content: bytes = b"x") -> tuple[str, str]:
    with pytest.raises(OutputError) as refused:
        write_file_atomically(path, content)
    return refused.value.what, refused.value.hint


def test_a_file_is_written_whole_by_bytes_or_by_a_function(tmp_path: Path) -> None:
    write_file_atomically(tmp_path / "a", b"one")
    write_file_atomically(tmp_path / "a", lambda file: file.write(b"two"))
    assert (tmp_path / "a").read_bytes() == b"two"
    assert names(tmp_path) == ["a"]


def test_a_failure_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    def fails(file: BinaryIO) -> None:
        file.write(b"half")
        raise KeyboardInterrupt

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt):
        write_file_atomically(tmp_path / "a", fails)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert output_refusal(tmp_path) == (
        f"{tmp_path} is a folder",
        "give the name of a file in it",
    )


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none" / "a"
    expected = (
        f"{path} can't be written: there is no folder {path.parent}",
        "create the folder first",
    )
    assert output_refusal(path) == expected
    (tmp_path / "none").write_bytes(b"a file")
    assert output_refusal(path) == expected


@posix
@pytest.mark.skipif(hasattr(os, "getuid") and os.getuid() == 0, reason="root may write anywhere")
def test_a_closed_folder_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        assert output_refusal(tmp_path / "a") == (
            f"{tmp_path}/a can't be written: {tmp_path} is read-only for this user",
            "choose another place",
        )
    finally:
        tmp_path.chmod(0o755)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_is_written_to_and_a_full_one_is_named() -> None:
    write_file_atomically(Path("/dev/null"), b"x")
    assert Path("/dev/null").is_char_device()
    assert output_refusal(Path("/dev/full")) == (
        "/dev/full can't be written: the disk is full",
        "free some space",
    )


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_file_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_a_missing_folder_can_not_be_locked(tmp_path: Path) -> None:
    with pytest.raises(OutputError), folder_lock(tmp_path / "none"):
        pass


ADDING = """
import sys, time
from pathlib import Path
from cosyvoice_cpu.bundle import folder_lock, write_file_atomically
folder = Path(sys.argv[1])
for _ in range(10):
    with folder_lock(folder):
        count = len(list(folder.glob("*.safetensors")))
        time.sleep(0.001)
        path = folder / f"{count}.safetensors"
        assert not path.exists()
        write_file_atomically(path, b"x")
"""


def test_processes_that_add_speakers_at_once_all_succeed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ADDING, str(tmp_path)]
    processes = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert len(list(tmp_path.glob("*.safetensors"))) == 30


def test_a_lock_is_free_again_after_an_error(tmp_path: Path) -> None:
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), folder_lock(tmp_path):
            raise ZeroDivisionError
    assert time.monotonic() - start < 5


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_a_replaced_file_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_file_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == mode


@posix
def test_a_private_file_is_never_open_to_others_while_it_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    path.chmod(0o600)

    def write(file: BinaryIO) -> None:
        assert all(p.stat().st_mode & 0o077 == 0 for p in tmp_path.iterdir())
        file.write(b"new")

    write_file_atomically(path, write)
