"""The command `cache-speaker`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.command_line import CLIP, CLIPS, PROGRAM, TRANSCRIPT, call, lines, run


@pytest.fixture
def voice(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A bundle without speakers."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "voice"))


def test_a_cached_speaker_is_listed_and_removed(voice: Path) -> None:
    made = run("cache-speaker", voice, "austen", "--audio", CLIP, "--transcript", TRANSCRIPT)
    path = voice / "speakers" / "austen.safetensors"
    assert (made.code, made.stderr) == (0, "")
    assert made.stdout.startswith(f"{path}: 5.3 s, ")
    listed = run("cache-speaker", voice, "--list")
    assert listed.stdout.split(maxsplit=3) == ["austen", "5.3", "s", TRANSCRIPT + "\n"]
    assert "speakers: austen" in run("info", voice).stdout
    removed = run("cache-speaker", voice, "austen", "--remove")
    assert removed.stdout == f"removed {path}\n"
    assert run("cache-speaker", voice, "--list").stdout == ""


def test_one_clip_gives_one_file_byte_for_byte_whatever_the_process(
    voice: Path, tmp_path: Path
) -> None:
    files = []
    for seed in "0", "1", "2":
        folder = tmp_path / seed
        arguments = ("cache-speaker", voice, "a", "--audio", CLIP, "--transcript", TRANSCRIPT)
        made = run(*arguments, "--speakers", folder, variables={"PYTHONHASHSEED": seed})
        assert made.code == 0
        files.append((folder / "a.safetensors").read_bytes())
    assert len(set(files)) == 1


def test_json_reports_clip_speaker_and_warnings(voice: Path) -> None:
    outcome = run(
        "cache-speaker", voice, "a", "--audio", CLIP, "--transcript", "Only this.", "--json"
    )
    report = json.loads(outcome.stdout)
    assert report["speaker"] == "a"
    assert report["speech_tokens"] == 132
    assert report["transcript"] == "Only this."
    warning = "the transcript seems shorter than what is spoken in the clip"
    assert report["warnings"] == [warning]
    assert outcome.stderr == f"warning: {warning}\n"
    listed = json.loads(run("cache-speaker", voice, "--list", "--json").stdout)
    assert [row["speaker"] for row in listed["speakers"]] == ["a"]


def test_a_taken_name_needs_overwrite(voice: Path) -> None:
    arguments = ("cache-speaker", voice, "austen", "--audio", CLIP)
    assert run(*arguments).code == 0
    outcome = run(*arguments)
    assert outcome.code == 1
    assert "there already is a speaker 'austen'" in outcome.stderr
    assert run(*arguments, "--overwrite").code == 0


def test_a_folder_of_one_s_own_leaves_the_bundle_alone(voice: Path, tmp_path: Path) -> None:
    own = tmp_path / "mine"
    outcome = run("cache-speaker", voice, "austen", "--audio", CLIP, "--speakers", own)
    assert outcome.code == 0
    assert [path.name for path in own.iterdir()] == ["austen.safetensors"]
    assert not (voice / "speakers").exists()
    arguments = ("synth", "Hi", "--output", "-", "--bundle", voice, "--speakers", own)
    assert run(*arguments).stdout.startswith("RIFF")


@pytest.mark.skipif(sys.platform != "linux", reason="drops a right that only Linux has")
def test_a_read_only_bundle_is_used_as_it_is_and_named_when_written_to(voice: Path) -> None:
    assert run("cache-speaker", voice, "austen", "--audio", CLIP).code == 0
    for path in [voice, *voice.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # Root writes anywhere; without CAP_DAC_OVERRIDE (1) it is bound by the permissions, too.
    program = (
        sys.executable,
        "-c",
        "import ctypes, os, sys\n"
        "ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)\n"
        f"os.execv({PROGRAM[0]!r}, [{PROGRAM[0]!r}, '-m', 'cosyvoice_cpu', *sys.argv[1:]])\n",
    )
    spoken = run("synth", "Hi", "--output", "-", "--bundle", voice, program=program)
    assert spoken.stdout.startswith("RIFF")
    outcome = run("cache-speaker", voice, "bob", "--audio", CLIP, program=program)
    for path in [voice, *voice.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    assert outcome.code == 1
    assert outcome.stderr == lines(
        f"{voice}/speakers/bob.safetensors can't be written: {voice}/speakers is read-only for"
        " this user",
        "give another folder with --speakers DIR, here and to `cosyvoice-cpu synth`",
    )


def test_trim_takes_part_of_a_clip_that_is_too_long(voice: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(CLIP)
    long = tmp_path / "long.wav"
    soundfile.write(long, np.concatenate([samples, np.zeros(rate)] * 6), rate)
    outcome = run("cache-speaker", voice, "austen", "--audio", long)
    assert outcome.code == 1
    assert outcome.stderr.startswith(f"error: {long} lasts 38 s; a prompt may have at most 30 s\n")
    trimmed = run("cache-speaker", voice, "austen", "--audio", long, "--trim", "--json")
    assert 3.0 <= json.loads(trimmed.stdout)["seconds_clip"] <= 10.0


def test_a_speaker_of_another_model_is_listed_as_unusable(voice: Path) -> None:
    assert run("cache-speaker", voice, "austen", "--audio", CLIP).code == 0
    path = voice / "speakers" / "austen.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    outcome = run("cache-speaker", voice, "--list")
    assert outcome.code == 0
    assert outcome.stdout.startswith("austen               unusable: ")


def test_speakers_of_the_original_are_imported(voice: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    file = tmp_path / "spk2info.pt"
    torch.save({"sft one": {"embedding": torch.ones(1, 192)}}, file)
    outcome = run("cache-speaker", voice, "--import", file, "--json")
    assert [row["speaker"] for row in json.loads(outcome.stdout)["speakers"]] == ["sft_one"]
    assert run("synth", "Hi", "--output", "-", "--bundle", voice).stdout.startswith("RIFF")


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (("a",), 2, "there is no clip"),
        (("--audio", str(CLIP)), 2, "--audio needs the NAME of a speaker"),
        (("--remove",), 2, "--remove needs the NAME of a speaker"),
        (("a", "--list"), 2, "--list takes no NAME, but got 'a'"),
        (("a", "--list", "--remove"), 2, "--list and --remove exclude each other"),
        (("--list", "--trim"), 2, "--trim belongs to --audio, which is missing"),
        (("a", "--remove"), 1, "there is no speaker 'a'"),
        (("../a", "--audio", str(CLIP)), 1, "'../a' can't name a speaker"),
        (("a", "--audio", str(CLIPS)), 1, f"{CLIPS} is a folder"),
        (("--import", "none.pt"), 1, "none.pt can't be read (No such file or directory)"),
    ],
)
def test_a_wrong_request_is_two_lines_and_no_speaker(
    voice: Path, arguments: tuple[str, ...], code: int, error: str
) -> None:
    outcome = call("cache-speaker", voice, *arguments)
    assert outcome.code == code
    assert outcome.stderr.splitlines()[0] == f"error: {error}"
    assert len(outcome.stderr.splitlines()) == 2
    assert not (voice / "speakers").exists()
