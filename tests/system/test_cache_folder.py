"""Where a user's files go: the cache, a folder in the temporary one, or nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cosyvoice_cpu.system.cache_folder import (
    CACHE_VARIABLE,
    cache_folder,
    private_temporary_folder,
    writable_folder,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="users and modes of POSIX")


@pytest.fixture
def no_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with a bare numeric user: no passwd entry, no variable that helps."""
    import pwd

    def no_entry(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", no_entry)
    for name in ("HOME", "XDG_CACHE_HOME", CACHE_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's place for caches")
def test_the_cache_is_in_the_place_that_the_user_or_the_platform_chose(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/somewhere")
    assert cache_folder() == Path("/somewhere")
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("HOME", "/home/anna")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/anna/.cache/cosyvoice-cpu")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert cache_folder() == Path("/fast/cosyvoice-cpu")


def test_a_user_without_a_home_folder_has_no_cache(no_user: None) -> None:
    assert cache_folder() is None
    assert writable_folder("demo") is None


def test_a_variable_makes_up_for_the_home_folder(
    no_user: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    assert writable_folder("demo") == tmp_path / "cache" / "demo"
    assert (tmp_path / "cache" / "demo").is_dir()


def test_a_cache_that_can_not_be_made_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "cache"))
    assert writable_folder("demo") is None


def test_the_temporary_folder_is_this_user_s_own_and_stays_the_same(temporary: Path) -> None:
    folder = private_temporary_folder()
    assert folder.parent == temporary
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_temporary_folder() == folder


def test_a_name_that_others_took_is_left_for_one_folder_that_stays_the_same(
    temporary: Path,
) -> None:
    taken = temporary / f"cosyvoice-cpu-{os.getuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    folder = private_temporary_folder()
    assert folder != taken
    assert folder.stat().st_mode & 0o777 == 0o700
    assert private_temporary_folder() == folder


def test_a_link_under_the_name_is_not_followed(temporary: Path) -> None:
    (temporary / "elsewhere").mkdir(mode=0o700)
    (temporary / f"cosyvoice-cpu-{os.getuid()}").symlink_to(temporary / "elsewhere")
    assert private_temporary_folder() == private_temporary_folder()
    assert list((temporary / "elsewhere").iterdir()) == []
