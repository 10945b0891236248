"""Where a user's files go: the cache, or nowhere."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from cosyvoice_cpu.system.cache_folder import (
    CACHE_VARIABLE,
    cache_folder,
    read_cached,
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


def test_a_variable_makes_up_for_the_home_folder(
    no_user: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"


def test_what_is_no_regular_file_of_this_user_is_not_read_from_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    assert read_cached(path, 10) is None
    os.mkfifo(path)  # nobody writes to it: whoever opens it waits for ever
    assert read_cached(path, 10) is None
    path.unlink()
    path.write_bytes(b"content")
    assert read_cached(path, 10) == b"content"
    assert read_cached(path, 6) is None
    path.chmod(0o666)
    assert read_cached(path, 10) is None
    path.unlink()
    path.mkdir()
    assert read_cached(path, 10) is None
