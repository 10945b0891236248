"""The rows of docs/quality.md: ways in which one voice speaks, beside its float32 default."""

from __future__ import annotations

import json

import pytest

from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.errors import UsageError
from tools import quality_rows
from tools.quality_rows import Kept, Way, main, row


def test_a_way_is_read_with_all_that_can_be_said_of_it():
    way = Way.parsed("fast-stream=voice/,engine=openvino-bf16,preset=fast,stream")
    assert way.name == "fast-stream"
    assert str(way.bundle) == "voice"
    assert (way.engine, way.preset, way.stream) == ("openvino-bf16", "fast", True)
    plain = Way.parsed("int8=voice-int8/")
    assert (plain.engine, plain.preset, plain.stream) == (None, "default", False)


@pytest.mark.parametrize("text", ["voice/", "=voice/", "name=", "a=voice/,speed=2", "a=v,stream=x"])
def test_a_way_that_cannot_be_read_is_an_error_of_two_lines(text):
    with pytest.raises(UsageError, match="can't be read"):
        Way.parsed(text)


def test_a_row_compares_utterance_by_utterance():
    before = [{"errors": 1, "words": 10, "similarity": 0.8, "mos": 3.0, "mel_db": 0, "trouble": 0}]
    after = [{"errors": 3, "words": 10, "similarity": 0.7, "mos": 2.5, "mel_db": 1, "trouble": 1}]
    assert row("worse", before * 2, after * 2) == (
        "| worse | 30.0% | 20.0 (20.0 to 20.0) | 0.100 (0.100 to 0.100) "
        "| 0.50 (0.50 to 0.50) | 1.00 | 2 of 2 |"
    )


def test_what_nobody_judged_is_said():
    silent = [{"trouble": 0.0, "mel_db": 0.5}]
    assert row("alone", silent, silent).count("not judged") == 3


def test_what_is_kept_is_not_measured_again(tmp_path):
    path = tmp_path / "kept.jsonl"
    Kept(path).get("fast", "en-001", 0, lambda: {"mos": 3.0})
    again = Kept(path)
    assert again.get("fast", "en-001", 0, lambda: pytest.fail("measured again")) == {"mos": 3.0}
    again.get("fast", "en-001", 1, lambda: {"mos": 2.0})
    assert [json.loads(line)[0] for line in path.open()] == [
        ["fast", "en-001", 0],
        ["fast", "en-001", 1],
    ]


def test_the_embedded_voice_has_a_row_for_each_way(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quality_rows, "available_estimators", lambda *_: [])
    demo, kept = str(DEMO_BUNDLE), str(tmp_path / "kept.jsonl")
    ways = ["--way", f"fast={demo},preset=fast", "--way", f"stream={demo},stream"]
    arguments = ["quality_rows", demo, "--kept", kept, "--items", "1", "--threads", "1", *ways]
    monkeypatch.setattr("sys.argv", arguments)
    assert main() == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [cells[0].removeprefix("| ") for cells in rows] == ["float32", "fast", "stream"]
    distances = [float(cells[5]) for cells in rows]
    assert distances[0] == 0.0
    assert min(distances[1:]) > 0.05
