"""The project's calibration data: what its README promises of the clips and the lists of texts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import soundfile
from support.places import CALIBRATION, ROOT

from cosyvoice_cpu.evaluation.quality.sentences import all_sentences

DATA = CALIBRATION
PAIRS = [json.loads(line) for line in (DATA / "pairs.jsonl").read_text("utf-8").splitlines()]
TEXTS = sorted(DATA.glob("texts-*.txt"))
REDISTRIBUTABLE = {"public domain", "CC-BY-4.0", "Apache-2.0"}
HAN = re.compile("[\u4e00-\u9fff]")


def is_synthetic(pair: dict[str, str]) -> bool:
    return pair["origin"].startswith("synthetic: ")


def seconds(pair: dict[str, str]) -> float:
    return float(soundfile.info(DATA / pair["audio"]).duration)


def test_every_clip_is_named_once_and_exists() -> None:
    named = [pair["audio"] for pair in PAIRS]
    there = [f"audio/{path.name}" for path in (DATA / "audio").iterdir()]
    assert sorted(named) == sorted(there)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: Path(pair["audio"]).stem)
def test_a_pair_is_16_khz_mono_of_known_origin_with_a_text_of_its_length(
    pair: dict[str, str],
) -> None:
    assert set(pair) == {"audio", "text", "language", "origin", "licence"}
    assert pair["origin"].strip()
    assert pair["licence"] in REDISTRIBUTABLE
    assert pair["language"] == ("zh" if HAN.search(pair["text"]) else "en")
    info = soundfile.info(DATA / pair["audio"])
    assert (info.format, info.samplerate, info.channels) == ("FLAC", 16_000, 1)
    assert 1 <= info.duration <= 30
    assert 8 <= len(pair["text"].encode()) / info.duration <= 25  # bytes per second


def test_the_clips_last_a_few_minutes_in_both_languages() -> None:
    assert 150 <= sum(map(seconds, PAIRS)) <= 240
    for language, least in (("en", 90), ("zh", 30)):
        assert sum(seconds(pair) for pair in PAIRS if pair["language"] == language) >= least
    assert sum(seconds(pair) for pair in PAIRS if not is_synthetic(pair)) >= 90


def test_the_folder_stays_below_three_megabytes() -> None:
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 3_000_000


def test_synthetic_clips_leave_out_the_voices_that_the_demo_was_trained_on() -> None:
    names = {Path(pair["audio"]).name for pair in PAIRS if is_synthetic(pair)}
    assert names == {path.name for path in (DATA / "audio").glob("kokoro-*")}
    for voice in ("af-heart", "am-michael", "bf-emma"):
        assert not any(voice in name for name in names)


def test_the_readme_has_a_row_for_every_clip() -> None:
    readme = (DATA / "README.md").read_text("utf-8")
    patterns = re.findall(r"^\| `([a-z0-9*-]+)`", readme, re.MULTILINE)
    for pair in PAIRS:
        assert any(Path(pair["audio"]).match(f"{pattern}.flac") for pattern in patterns)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_a_list_of_texts_has_no_empty_or_doubled_line(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert all(line.strip() == line != "" for line in lines)
    assert len(set(lines)) == len(lines)
    chinese = path.stem.endswith("zh")
    assert all(bool(HAN.search(line)) == chinese for line in lines)


def test_the_lists_share_no_text_with_the_quality_sentences_or_the_clips() -> None:
    listed = {line for path in TEXTS for line in path.read_text("utf-8").splitlines()}
    assert len(listed) > 100
    assert not listed & {sentence.text for sentence in all_sentences()}
    assert not listed & {pair["text"] for pair in PAIRS}


def test_the_wheel_carries_the_data_where_an_installed_package_looks_for_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "site-packages"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    code = (
        "from cosyvoice_cpu.quantization.calibration.pairs import *\n"
        "folder = project_calibration_data()\n"
        "print(folder, len(read_pairs(folder)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(installed)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == f"{installed / 'cosyvoice_cpu' / 'calibration_data'} {len(PAIRS)}"
    carried = {path.name for path in (installed / "cosyvoice_cpu/calibration_data").rglob("*.*")}
    assert carried == {path.name for path in DATA.rglob("*.*")}
