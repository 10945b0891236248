"""A loaded bundle's files: those that were checked, or one line."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.bundle_examples import WEIGHTS, make_bundle

from cosyvoice_cpu.bundle import BundleWriter, open_bundle
from cosyvoice_cpu.errors import BundleError

OTHER = bytes(reversed(WEIGHTS))  # as long as the first


def other_bundle(bundle: Path) -> Path:
    files = {"vocoder.onnx": (bundle / "vocoder/vocoder.onnx").read_bytes(), "w.bin": OTHER}
    return make_bundle(bundle.with_name("other"), files)


def by_overwrite(bundle: Path) -> None:
    other = open_bundle(other_bundle(bundle))
    manifest = other.manifest
    with BundleWriter(bundle, overwrite=True) as writer:
        drafts = {"vocoder": writer.copy_component(other, "vocoder")}
        writer.finish(
            generation=manifest.generation,
            source=manifest.source,
            audio=manifest.audio,
            components=drafts,  # type: ignore[arg-type]
            synthesis=manifest.synthesis,
            quality=manifest.quality,
        )


def by_copying_over(bundle: Path) -> None:
    shutil.copytree(other_bundle(bundle), bundle, dirs_exist_ok=True)


def by_renaming_files(bundle: Path) -> None:  # as rsync and package managers
    other = other_bundle(bundle)
    for name in ("manifest.json", "vocoder/vocoder.onnx", "vocoder/w.bin"):
        os.replace(other / name, bundle / name)


def by_renaming_the_folder(bundle: Path) -> None:
    other = other_bundle(bundle)
    os.rename(bundle, bundle.with_name("old"))
    os.rename(other, bundle)


def by_removing(bundle: Path) -> None:
    shutil.rmtree(bundle)


def by_moving_away(bundle: Path) -> None:
    os.rename(bundle, bundle.with_name("elsewhere"))


def by_a_link(bundle: Path) -> None:
    other = other_bundle(bundle)
    shutil.rmtree(bundle / "vocoder")
    os.symlink(other / "vocoder", bundle / "vocoder")


def by_one_byte_and_the_old_times(bundle: Path) -> None:
    weights = bundle / "vocoder/w.bin"
    status = weights.stat()
    weights.write_bytes(OTHER)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))


CHANGES = (
    by_overwrite,
    by_copying_over,
    by_renaming_files,
    by_renaming_the_folder,
    by_removing,
    by_moving_away,
    by_a_link,
    by_one_byte_and_the_old_times,
)


@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_a_bundle_that_is_no_longer_the_loaded_one_is_refused(
    tmp_path: Path, change: Callable[[Path], None], trust: bool
) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "voice"), trust=trust)
    with bundle.unchanged("vocoder"):
        pass
    change(tmp_path / "voice")
    with (
        pytest.raises(BundleError, match="was replaced or changed since it was loaded"),
        bundle.unchanged("vocoder"),
    ):
        pytest.fail("nothing may be opened")


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_while_a_file_is_opened_takes_the_place_of_its_error(
    tmp_path: Path, change: Callable[[Path], None]
) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "voice"))
    for fails in (False, True):
        with (
            pytest.raises(BundleError, match="was replaced or changed since it was loaded"),
            bundle.unchanged("vocoder"),
        ):
            if not fails:
                change(tmp_path / "voice")
            raise RuntimeError("whatever an engine says of half a file")


def test_what_fails_on_an_unchanged_bundle_keeps_its_error(tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "voice"))
    with pytest.raises(RuntimeError, match="of its own"), bundle.unchanged("vocoder"):
        raise RuntimeError("of its own")


def test_touched_files_and_true_copies_are_still_the_bundle(tmp_path: Path) -> None:
    bundle = open_bundle(make_bundle(tmp_path / "voice"))
    weights = tmp_path / "voice/vocoder/w.bin"
    os.utime(weights)
    with bundle.unchanged("vocoder"):
        pass
    weights.chmod(0o400)
    with bundle.unchanged("vocoder"):
        pass
    weights.unlink()
    weights.write_bytes(WEIGHTS)
    with bundle.unchanged("vocoder"):
        pass
