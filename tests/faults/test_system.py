"""Full disks, closed streams, no home, kills and interrupts: what surrounds a command fails."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command_line import CLIP, NUMERIC_USER, PROGRAM
from support.places import ROOT

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.frontend.speakers import Speaker

if sys.platform != "linux":
    pytest.skip("needs /dev/full, fork and POSIX limits", allow_module_level=True)

QUANTIZE = ("quantize", "B", "--recipe", "int8", "--component", "speech_lm", "--force")


def start(
    bundle: Path,
    folder: Path,
    *arguments: str | Path,
    before: Callable[[], object] | None = None,
    program: tuple[str, ...] = PROGRAM,
) -> subprocess.Popen[bytes]:
    """The command in a process of its own, in `folder`; B stands for the bundle."""
    return subprocess.Popen(
        [*program, *(bundle if argument == "B" else argument for argument in arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=before,  # noqa: PLW1509 - the child sets limits and closes files only
    )


def ends(process: subprocess.Popen[bytes], code: int) -> str:
    """stderr of the command, which ends with `code`, soon, and without a traceback."""
    _, stderr = process.communicate(timeout=120)
    text = stderr.decode()
    assert process.returncode == code, text
    assert "Traceback" not in text
    assert "internal error" not in text
    assert "Exception ignored" not in text
    assert len([line for line in text.splitlines() if line.startswith("error: ")]) == (
        code in (1, 2)
    )
    return text


@pytest.fixture(scope="module")
def speakers(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the speaker anna."""
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages
    from cosyvoice_cpu.synthesis.synthesizer import speaker_from_clip

    folder = tmp_path_factory.mktemp("speakers")
    stages = BundleStages.load(tiny_bundle)
    speaker_from_clip(stages.bundle, "anna", CLIP).speaker.save(folder / "anna.safetensors")
    return folder


@pytest.fixture
def synth(speakers: Path) -> tuple[str | Path, ...]:
    """The start of a command that speaks, but for --output."""
    return ("synth", "Hi", "--bundle", "B", "--speakers", speakers)


def at_most(size: int) -> Callable[[], None]:
    """Sets the largest file that the process may write, in bytes."""
    import resource

    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


@pytest.mark.parametrize("command", ["synth", "cache-speaker", "quantize", "export"])
def test_a_write_that_the_system_cuts_off_is_one_error_and_leaves_nothing(
    command: str,
    tiny_bundle: Path,
    tiny_checkpoint: Path,
    synth: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    arguments, size = {
        "synth": ((*synth, "--output", "o.wav"), 8192),
        "cache-speaker": (("cache-speaker", "B", "x", "--audio", CLIP, "--speakers", "."), 8192),
        "quantize": ((*QUANTIZE, "--output", "q"), 500_000),
        "export": (("export", tiny_checkpoint, "--output", "e"), 500_000),
    }[command]
    text = ends(start(tiny_bundle, tmp_path, *arguments, before=at_most(size)), 1)
    assert "can't be written" in text
    assert "disk " in text
    assert list(tmp_path.iterdir()) == []


def test_audio_for_a_full_device_is_one_error(
    tiny_bundle: Path, synth: tuple[str | Path, ...], tmp_path: Path
) -> None:
    (tmp_path / "o.wav").symlink_to("/dev/full")
    text = ends(start(tiny_bundle, tmp_path, *synth, "--output", "o.wav"), 1)
    assert "can't be written: the disk is full" in text


def _on_a_small_disk(folder: Path) -> bool:
    return (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder],
            check=False,
            capture_output=True,
        ).returncode
        == 0
    )


def test_a_disk_that_is_too_small_keeps_the_old_bundle(tiny_bundle: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not _on_a_small_disk(disk):
        pytest.skip("this user may mount nothing")
    try:
        (disk / "q").mkdir()
        text = ends(start(tiny_bundle, disk, *QUANTIZE, "--output", "q"), 1)
        assert "are free on its disk" in text
        assert os.listdir(disk) == ["q"]
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("arguments", [("info", "B"), ("info", "B", "--json"), ("--help",)])
def test_a_full_stdout_is_one_error(arguments: tuple[str, ...], tiny_bundle: Path) -> None:
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, *(str(tiny_bundle) if a == "B" else a for a in arguments)],
            stdout=full,
            stderr=subprocess.PIPE,
            env=buffered,
            check=False,
        )
    assert done.returncode == 1
    error, hint = done.stderr.splitlines()
    assert error == b"error: reading or writing failed: No space left on device"
    assert hint.startswith(b"hint:  ")


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_stream_changes_nothing_else(
    number: int, tiny_bundle: Path, synth: tuple[str | Path, ...], tmp_path: Path
) -> None:
    process = start(
        tiny_bundle, tmp_path, *synth, "--output", "o.wav", before=lambda: os.close(number)
    )
    ends(process, 0)
    assert (tmp_path / "o.wav").read_bytes()[:4] == b"RIFF"


def test_audio_for_a_closed_stdout_is_wrong_usage(
    tiny_bundle: Path, synth: tuple[str | Path, ...], tmp_path: Path
) -> None:
    process = start(tiny_bundle, tmp_path, *synth, "--output", "-", before=lambda: os.close(1))
    assert "stdout is closed" in ends(process, 2)


@pytest.mark.parametrize("home", [None, "/none/at/all", "/dev/null", "empty"])
def test_without_a_usable_home_nothing_is_missed_and_nothing_is_left_there(
    home: str | None,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("COSYVOICE_CPU_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    if home == "empty":
        home = str(tmp_path / "home")
        os.mkdir(home)
    if home:
        monkeypatch.setenv("HOME", home)
    options = ("--audio", CLIP, "--speakers", tmp_path / "speakers")
    process = start(tiny_bundle, tmp_path, "cache-speaker", "B", "anna", *options)
    assert ends(process, 0) == ""  # ONNX Runtime's telemetry complains here, were it on
    if home and os.path.isdir(home):
        kept = {path.name for path in Path(home).glob(".cache/*")}
        assert kept <= {"cosyvoice-cpu"}


@pytest.mark.parametrize("command", ["info", "synth", "quantize"])
def test_a_numeric_user_without_home_works_without_a_cache(
    command: str,
    tiny_bundle: Path,
    synth: tuple[str | Path, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "COSYVOICE_CPU_CACHE"):
        monkeypatch.delenv(name, raising=False)
    arguments, outputs = {
        "info": (("info", "B"), []),
        "synth": ((*synth, "--output", "o.wav"), ["o.wav"]),
        "quantize": ((*QUANTIZE, "--output", "q"), ["q"]),
    }[command]
    ends(start(tiny_bundle, tmp_path, *arguments, program=NUMERIC_USER), 0)
    assert os.listdir(tmp_path) == outputs


def _killed(rounds: int, folder: Path, *arguments: str | Path) -> list[dict[str, object]]:
    program = ROOT / "tests" / "support" / "fuzz_kill.py"
    done = subprocess.run(
        [sys.executable, program, str(rounds), folder, *arguments],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )
    found: list[dict[str, object]] = json.loads(done.stdout)
    assert [run["ended"] for run in found] == [0, *[-signal.SIGKILL] * (len(found) - 2), 0]
    return found


def _only(found: list[dict[str, object]], name: str) -> None:
    """Beside `name`, a killed run left hidden files at most, and the last run nothing at all."""
    for run in found:
        assert isinstance(run["names"], list)
        assert all(other == name or other.startswith(f".{name}.") for other in run["names"])
    assert found[-1]["names"] == [name]


def test_synth_killed_at_any_step_leaves_a_whole_file_and_the_next_run_tidies_up(
    tiny_bundle: Path, synth: tuple[str | Path, ...], tmp_path: Path
) -> None:
    import soundfile

    folder = tmp_path / "out"
    arguments = [tiny_bundle if argument == "B" else argument for argument in synth]
    _only(_killed(4, folder, *arguments, "--output", folder / "o.wav"), "o.wav")
    assert soundfile.info(folder / "o.wav").frames > 0


def test_cache_speaker_killed_at_any_step_leaves_a_whole_file(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    options = ("--audio", CLIP, "--speakers", folder, "--overwrite")
    found = _killed(5, folder, "cache-speaker", tiny_bundle, "anna", *options)
    _only(found, "anna.safetensors")
    assert Speaker.load(folder / "anna.safetensors").name == "anna"


def test_quantize_killed_at_any_step_leaves_the_old_bundle_or_the_new(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    arguments = [tiny_bundle if argument == "B" else argument for argument in QUANTIZE]
    found = _killed(6, folder, *arguments, "--output", folder / "q", "--overwrite")
    _only(found, "q")
    open_bundle(folder / "q")


def test_export_killed_at_any_step_leaves_the_old_bundle_or_the_new(
    tiny_checkpoint: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    small = ("--shapes", "dynamic", "--no-front-end", "--max-seconds", "4", "--overwrite")
    _only(_killed(2, folder, "export", tiny_checkpoint, "--output", folder / "e", *small), "e")
    open_bundle(folder / "e")


@pytest.mark.parametrize("command", ["bench", "bench that makes its bundle", "profile"])
def test_a_command_killed_in_a_folder_of_its_own_has_it_removed_by_the_next_one(
    command: str,
    tiny_bundle: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch, work = tmp_path / "tmp", tmp_path / "work"
    scratch.mkdir()
    work.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    short = ("--seconds", "1", "--prompt-seconds", "1", "--threads", "1")
    bench = ("bench", *short, "--no-loading", "--repeat", "1", "--work", work)
    arguments: tuple[str | Path, ...] = {
        "bench": (*bench, tiny_bundle),
        "bench that makes its bundle": (*bench, "--checkpoint", tiny_checkpoint, "--rows", "onnx"),
        "profile": ("profile", *short, tiny_bundle),
    }[command]
    folder = work if "makes" in command else scratch
    process = start(tiny_bundle, tmp_path, *arguments)
    while not any(folder.iterdir()):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=120)
    assert any(folder.iterdir())  # else the test shows nothing
    ends(start(tiny_bundle, tmp_path, *arguments), 0)
    assert list(folder.iterdir()) == []


def test_a_synthetic_checkpoint_whose_writer_was_killed_is_removed_by_the_next(
    tmp_path: Path,
) -> None:
    make = "from cosyvoice_cpu.networks.synthetic_checkpoint import make_synthetic_checkpoint as m"
    call = f"{make}; from pathlib import Path; m(Path('c'), size='tiny', front_end=False)"
    process = subprocess.Popen([sys.executable, "-c", call], cwd=tmp_path)
    while not any(tmp_path.iterdir()):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert [path.name.partition("-")[0] for path in tmp_path.iterdir()] == [".c.partial"]
    subprocess.run([sys.executable, "-c", call], cwd=tmp_path, check=True)
    assert os.listdir(tmp_path) == ["c"]


def _importing(process: subprocess.Popen[bytes], folder: Path) -> bool:
    return "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()


def _writing(process: subprocess.Popen[bytes], folder: Path) -> bool:
    return any(folder.glob(".e.partial-*/*/*"))


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("moment", [_importing, _writing])
def test_ctrl_c_ends_an_export_soon_and_leaves_nothing(
    moment: Callable[[subprocess.Popen[bytes], Path], bool],
    times: int,
    tiny_checkpoint: Path,
    tmp_path: Path,
) -> None:
    process = start(tiny_checkpoint, tmp_path, "export", tiny_checkpoint, "--output", "e")
    while not moment(process, tmp_path):
        assert process.poll() is None
        time.sleep(0.02)
    for _ in range(times):
        process.send_signal(signal.SIGINT)
        time.sleep(0.02)
    started = time.monotonic()
    text = ends(process, 130)
    assert time.monotonic() - started < 30
    assert text == "interrupted\n"
    assert list(tmp_path.iterdir()) == []


def test_two_that_write_one_file_leave_one_whole_file(
    tiny_bundle: Path, synth: tuple[str | Path, ...], tmp_path: Path
) -> None:
    import soundfile

    both = [start(tiny_bundle, tmp_path, *synth, "--output", "o.wav") for _ in range(2)]
    for process in both:
        ends(process, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["o.wav"]
    assert soundfile.info(tmp_path / "o.wav").frames > 0


def test_two_that_make_one_bundle_make_one(tiny_bundle: Path, tmp_path: Path) -> None:
    both = [start(tiny_bundle, tmp_path, *QUANTIZE, "--output", "q") for _ in range(2)]
    codes = []
    for process in both:
        with contextlib.suppress(subprocess.TimeoutExpired):
            _, stderr = process.communicate(timeout=120)
        codes.append(process.returncode)
        assert b"internal error" not in stderr
    assert sorted(codes) == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["q"]
    open_bundle(tmp_path / "q")


def test_two_that_make_one_speaker_make_one(tiny_bundle: Path, tmp_path: Path) -> None:
    options = ("--audio", CLIP, "--speakers", ".")
    both = [start(tiny_bundle, tmp_path, "cache-speaker", "B", "anna", *options) for _ in range(2)]
    for process in both:
        process.communicate(timeout=120)
    assert sorted(process.returncode for process in both) == [0, 1]
    assert [path.name for path in tmp_path.iterdir()] == ["anna.safetensors"]
    Speaker.load(tmp_path / "anna.safetensors")
