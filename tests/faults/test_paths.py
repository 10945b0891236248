"""Every option that names a file or folder, with names that mean no such thing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.command_line import CLIP
from support.fuzz_command import refused

LONG = "a" * 300  # file systems stop at 255 bytes
DEEP = "/".join(["b" * 200] * 30)  # and paths at 4096

# B stands for a good bundle, C for a good checkpoint, X for the bad name.
INPUTS = {
    "info": "info X",
    "verify": "verify X",
    "synth --bundle": "synth Hi --output o.wav --bundle X",
    "cache-speaker BUNDLE": "cache-speaker X --list",
    "quantize BUNDLE": "quantize X --output q",
    "profile": "profile X",
    "export CHECKPOINT": "export X --output e",
    "synth --text-file": "synth --text-file X --output o.wav --bundle B",
    "synth --audio": "synth Hi --audio X --output o.wav --bundle B",
    "cache-speaker --audio": "cache-speaker B anna --audio X",
    "cache-speaker --import": "cache-speaker B --import X",
    "quantize --recipe": "quantize B --output q --dry-run --recipe X.toml",
    "bench --compare": "bench B --compare X",
    "bench --checkpoint": "bench --checkpoint X --rows onnx",
}
OUTPUTS = {
    "synth --output": "synth Hi --output X.wav --bundle B",
    "export --output": "export C --output X",
    "quantize --output": "quantize B --recipe int8 --output X",
    "cache-speaker --speakers": f"cache-speaker B anna --audio {CLIP} --speakers X",
    "bench --output": "bench B --output X/o",
}
USAGE = {"quantize --recipe", "bench --compare"}  # their errors count as wrong usage


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own current folder with things that are not what a command asks for."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "circle.wav").symlink_to("circle.wav")
    (tmp_path / "circle.toml").symlink_to("circle.toml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_bytes(b"")
    return tmp_path


def _line(command: str, name: str, bundle: Path, checkpoint: Path) -> list[str]:
    places = {"B": str(bundle), "C": str(checkpoint)}
    return [places.get(word, word.replace("X", name)) for word in command.split()]


BAD_INPUTS = {
    "missing": "none",
    "too-long-a-name": LONG,
    "too-long-a-path": DEEP,
    "circle-of-links": "circle",
    "empty-folder": "empty",
    "empty-file": "file",
    "file-as-a-folder": "file/x",
    "no-bytes": "/dev/null",
    "endless": "/dev/zero",
    "escape-sequence": "\x1b[31mred",
}


@pytest.mark.parametrize("bad", BAD_INPUTS.values(), ids=BAD_INPUTS)
@pytest.mark.parametrize("command", INPUTS.values(), ids=INPUTS)
def test_an_input_that_is_none_is_refused(
    command: str, bad: str, place: Path, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    before = sorted(os.listdir(place))
    wrong_usage = any(command == INPUTS[name] for name in USAGE)
    fact = refused(*_line(command, bad, tiny_bundle, tiny_checkpoint), code=2 if wrong_usage else 1)
    assert "\x1b" not in fact
    assert sorted(os.listdir(place)) == before


BAD_OUTPUTS = {
    "too-long-a-name": LONG,
    "too-long-a-path": DEEP,
    "circle-of-links": "circle",
    "below-a-file": "file/x",
    "in-a-missing-folder": "none/none/x",
    "in-a-pseudo-file-system": "/proc/x/x",
}


@pytest.mark.parametrize("bad", BAD_OUTPUTS.values(), ids=BAD_OUTPUTS)
@pytest.mark.parametrize("command", OUTPUTS.values(), ids=OUTPUTS)
def test_an_output_that_can_not_be_is_refused(
    command: str, bad: str, place: Path, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    if "--speakers" in command and bad == "none/none/x":
        pytest.skip("a folder of speakers is made, with those above it")
    before = sorted(os.listdir(place))
    refused(*_line(command, bad, tiny_bundle, tiny_checkpoint))
    assert sorted(os.listdir(place)) == before


def test_a_link_to_a_missing_folder_names_that_folder(place: Path, tiny_bundle: Path) -> None:
    (place / "o.wav").symlink_to(place / "gone" / "o.wav")
    speaker = ("--audio", CLIP, "--bundle", tiny_bundle)
    fact = refused("synth", "Hi", "--output", "o.wav", *speaker)
    assert fact.endswith(f"there is no folder {place / 'gone'}")


def test_a_bundle_gets_no_name_that_onnx_can_not_open(place: Path, tiny_checkpoint: Path) -> None:
    fact = refused("export", tiny_checkpoint, "--output", "caf\udce9")
    assert fact.endswith("the path is not UTF-8")
    assert "caf\udce9" not in os.listdir(place)


def test_a_clip_is_not_overwritten_by_what_it_says(place: Path, tiny_bundle: Path) -> None:
    own = place / "own.flac"
    own.write_bytes(CLIP.read_bytes())
    (place / "link.flac").symlink_to(own)
    for output in ("own.flac", "link.flac"):
        fact = refused(
            "synth", "Hi", "--output", output, "--audio", own, "--bundle", tiny_bundle, code=2
        )
        assert fact == f"{output} is the clip of --audio itself"
    assert own.read_bytes() == CLIP.read_bytes()


@pytest.mark.parametrize("kind", ["pipe", "folder", "link", "socket"])
def test_what_is_no_file_in_a_speakers_folder_is_refused_and_not_waited_for(
    kind: str, place: Path, tiny_bundle: Path
) -> None:
    import socket

    path = place / "anna.safetensors"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    else:
        socket.socket(socket.AF_UNIX).bind("anna.safetensors")
    arguments = ("--output", "o.wav", "--bundle", tiny_bundle, "--speakers", place)
    refused("synth", "Hi", *arguments, "--speaker", "anna")
    assert not (place / "o.wav").exists()


@pytest.mark.parametrize("option", ["synth --audio", "cache-speaker --import"])
def test_a_pipe_in_place_of_a_file_is_not_waited_for(
    option: str, place: Path, tiny_bundle: Path, tiny_checkpoint: Path
) -> None:
    os.mkfifo("pipe")
    fact = refused(*_line(INPUTS[option], "pipe", tiny_bundle, tiny_checkpoint))
    assert fact == "pipe is not a file"


@pytest.mark.parametrize(
    "line",
    [
        r'{"audio": "a\u0000b.wav", "text": "x"}',
        r'{"audio": "../clip.wav", "text": "x"}',
        r'{"audio": "/etc/passwd", "text": "x"}',
        r'{"audio": "link/passwd", "text": "x"}',
        r'{"audio": "circle", "text": "x"}',
        r'{"audio": "pipe", "text": "x"}',
        r'{"audio": "", "text": "x"}',
        r'{"audio": "clip.wav", "text": " "}',
        '{"audio": "' + LONG + '", "text": "x"}',
        "[" * 100_000,
        "{",
    ],
    ids=lambda line: line[:24],
)
def test_a_calibration_pair_that_is_none_is_refused(
    line: str, place: Path, tiny_bundle: Path
) -> None:
    from cosyvoice_cpu.errors import UsageError
    from cosyvoice_cpu.quantization.calibration.pairs import calibration_items
    from cosyvoice_cpu.runtime.bundle_stages import BundleStages

    (place / "link").symlink_to("/etc")
    os.mkfifo("pipe")
    (place / "pairs.jsonl").write_text(line)
    with pytest.raises(UsageError):
        calibration_items(BundleStages.load(tiny_bundle), place, lambda done: None)
