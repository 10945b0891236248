"""Calibration data: pairs in two layouts through the bundle's front end, or a clear refusal."""

from __future__ import annotations

import json
import shutil
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.places import CALIBRATION
from support.quantization_examples import float_bundle

from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.quantization.calibration.pairs import (
    RANDOM,
    calibration_items,
    halves,
    project_calibration_data,
    read_pairs,
)
from cosyvoice_cpu.runtime.bundle_stages import BundleStages

DATA = CALIBRATION


def nothing(done: float) -> None:
    pass


def a_clip(path: Path, seconds: float = 2.0) -> Path:
    rng = np.random.default_rng(0)
    soundfile.write(path, rng.uniform(-0.3, 0.3, round(seconds * 16_000)), 16_000)
    return path


def test_the_projects_own_pairs_are_found_and_read() -> None:
    folder = project_calibration_data()
    assert folder == DATA
    pairs = read_pairs(folder)
    assert len(pairs) == 30
    assert all(pair.audio.is_file() and pair.text for pair in pairs)


def test_audio_with_a_text_file_beside_it_is_a_pair(tmp_path: Path) -> None:
    a_clip(tmp_path / "b.wav")
    (tmp_path / "b.txt").write_text("\ufeffsecond\n", encoding="utf-8")
    a_clip(tmp_path / "a.flac")
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "notes.md").touch()
    assert [(pair.audio.name, pair.text) for pair in read_pairs(tmp_path)] == [
        ("a.flac", "first"),
        ("b.wav", "second"),
    ]


def test_items_come_from_the_clip_and_its_transcript(tiny_bundle: Path) -> None:
    stages = BundleStages.load(tiny_bundle)
    data = calibration_items(stages, None, nothing)
    assert data.origin == str(DATA)
    assert len(data.fitted) == 15  # one half of the project's 30
    assert len(data.held_out) == 4
    assert not {item.name for item in data.fitted} & {item.name for item in data.held_out}
    for items in (data.fitted, data.held_out):
        corpora = {item.name.split("-")[0] for item in items}
        assert {"librivox", "kokoro", "aishell"} <= corpora
    for item in [*data.fitted, *data.held_out]:
        assert len(item.prompt_mel) == 2 * len(item.prompt_tokens)
        assert len(item.tokens) >= 2 * len(item.prompt_tokens)
        assert len(item.prompt_tokens) + len(item.tokens) <= 150
        assert item.text_ids
        assert item.prompt_text_ids


def test_random_ids_are_taken_where_they_are_asked_for() -> None:
    data = calibration_items(BundleStages.load(float_bundle()), RANDOM, nothing)
    assert [item.name for item in data.fitted] == ["random 2"]
    assert [item.name for item in data.held_out] == ["random 1", "random 3"]
    assert data.held_out[0].tokens != data.held_out[1].tokens
    assert data.origin == "random ids"


@pytest.mark.parametrize("calibration", [None, DATA])
def test_a_bundle_without_front_end_gets_no_random_ids_unasked(calibration: Path | None) -> None:
    with pytest.raises(UsageError, match="has no front end, so it can't read") as caught:
        calibration_items(BundleStages.load(float_bundle()), calibration, nothing)
    assert "--no-front-end" in caught.value.hint
    assert "--calibration random" in caught.value.hint


def test_an_installation_without_calibration_data_is_refused_and_not_measured_on_random_ids(
    tiny_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "files", lambda package: tmp_path / package)
    with pytest.raises(UsageError, match="lacks the project's calibration data") as caught:
        calibration_items(BundleStages.load(tiny_bundle), None, nothing)
    assert "--calibration takes a folder" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", r"pairs\.jsonl, line 2: Input data was truncated"),
        ('{"audio": "a.wav"}', r"line 2: Object missing required field `text`"),
        ('{"audio": 3, "text": "x"}', r"line 2: Expected `str`, got `int`"),
        ('{"audio": "../a.wav", "text": "x"}', r"line 2: \.\./a\.wav is outside the folder"),
        ('{"audio": "/etc/passwd", "text": "x"}', r"line 2: /etc/passwd is outside the folder"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    good = json.dumps({"audio": "a.wav", "text": "x"})
    (tmp_path / "pairs.jsonl").write_text(f"{good}\n{line}\n")
    with pytest.raises(UsageError, match=message):
        read_pairs(tmp_path)


def test_a_folder_without_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no text/audio pair"):
        read_pairs(tmp_path)
    with pytest.raises(UsageError, match=r"there is no folder .*gone"):
        read_pairs(tmp_path / "gone")


def test_a_clip_without_transcript_is_named(tmp_path: Path) -> None:
    a_clip(tmp_path / "a.wav")
    with pytest.raises(UsageError, match=r"a\.wav has no transcript a\.txt"):
        read_pairs(tmp_path)


def test_a_transcript_that_is_no_text_is_named(tmp_path: Path) -> None:
    a_clip(tmp_path / "a.wav")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"a\.txt can't be read as UTF-8 text"):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.write_bytes(b"not audio"), r"a\.wav can't calibrate: "),
        (lambda path: soundfile.write(path, np.zeros(32_000), 16_000), r"a\.wav can't calibrate: "),
        (lambda path: a_clip(path, 0.3), r"a\.wav (can't calibrate|gives \d+ speech tokens)"),
        (lambda path: None, r"a\.wav can't calibrate: "),
    ],
)
def test_a_clip_that_cannot_serve_is_named(
    make: object, message: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    make(tmp_path / "a.wav")  # type: ignore[operator]
    line = json.dumps({"audio": "a.wav", "text": "some words"})
    (tmp_path / "pairs.jsonl").write_text(line)
    with pytest.raises(UsageError, match=message):
        calibration_items(BundleStages.load(tiny_bundle), tmp_path, nothing)


def test_an_empty_transcript_is_named(tmp_path: Path, tiny_bundle: Path) -> None:
    shutil.copyfile(DATA / "audio" / "librivox-austen-0880.flac", tmp_path / "a.flac")
    (tmp_path / "a.txt").write_text(" \n")
    with pytest.raises(UsageError, match=r"a\.flac has an empty transcript"):
        calibration_items(BundleStages.load(tiny_bundle), tmp_path, nothing)


@pytest.mark.parametrize("text", ["yes", "a much longer story " * 40])
def test_a_transcript_of_another_recording_is_noticed(
    text: str, tmp_path: Path, tiny_bundle: Path
) -> None:
    a_clip(tmp_path / "a.wav", seconds=6)
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UsageError, match=r"a\.wav lasts 6\.0 s, and its transcript has \d+ char"):
        calibration_items(BundleStages.load(tiny_bundle), tmp_path, nothing)


def test_every_other_pair_is_held_out() -> None:
    assert halves("abcdef") == ("bdf", "ace")
    assert halves("abc") == ("b", "ac")
    assert halves("ab") == ("b", "a")


def test_a_single_pair_is_too_little(tiny_bundle: Path, tmp_path: Path) -> None:
    shutil.copyfile(DATA / "audio" / "librivox-austen-0880.flac", tmp_path / "a.flac")
    (tmp_path / "a.txt").write_text("He was not an ill-disposed young man,")
    with pytest.raises(UsageError, match="holds one text/audio pair, too little to calibrate on"):
        calibration_items(BundleStages.load(tiny_bundle), tmp_path, nothing)
