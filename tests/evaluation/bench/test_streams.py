"""`bench --stream`: one request whole and streamed, and what is said of both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.command_line import run

from cosyvoice_cpu.bundle.reader import open_bundle
from cosyvoice_cpu.evaluation.bench.engines import bundle_specs
from cosyvoice_cpu.evaluation.bench.streams import markdown, run_stream_bench
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.runtime.bundle_stages import BundleStages


def test_a_stream_is_measured_beside_the_whole(tiny_bundle: Path) -> None:
    specs, workload = bundle_specs([tiny_bundle]), Workload(3.0, 1.0)
    (row,) = run_stream_bench(specs, workload, threads=1, workers=2, repeat=2)
    assert row.seconds_audio == 3.0
    assert len(row.whole_s) == len(row.stream_s) == len(row.last_over_second) == 2
    for first, whole_stream in zip(row.first_audio_s, row.stream_s, strict=True):
        assert 0 < first < whole_stream
    assert all(seconds >= 0 for seconds in row.silence_s)
    assert row.memory.peak_mb > 0
    table = markdown([row]).splitlines()
    assert len({line.count("|") for line in table}) == 1
    assert tiny_bundle.name in table[-1]


def test_a_stream_alone_has_no_figures_of_whole_speech(tiny_bundle: Path) -> None:
    specs, workload = bundle_specs([tiny_bundle]), Workload(2.0, 1.0)
    (row,) = run_stream_bench(specs, workload, threads=1, workers=1, repeat=1, whole=False)
    assert row.whole_s == [] and len(row.stream_s) == 1
    assert [cell.strip() for cell in markdown([row]).splitlines()[-1].split("|")][2:5:2] == [
        "–"
    ] * 2


def test_longer_speech_than_a_bundle_takes_in_one_piece_is_measured_in_pieces(
    tiny_bundle: Path,
) -> None:
    stages = BundleStages(open_bundle(tiny_bundle), threads=1)
    workload = Workload(float(stages.max_frames / stages.audio.frame_rate) + 5.0, 1.0)
    (row,) = run_stream_bench(
        bundle_specs([tiny_bundle]), workload, threads=1, workers=1, repeat=1, whole=False
    )
    (course,) = row.rtf_course
    assert len(course) == round(workload.seconds / 10)
    assert sum(course) / len(course) == pytest.approx(row.stream_s[0] / workload.seconds, rel=0.05)


def test_leaving_out_whole_speech_is_about_streams(tiny_bundle: Path) -> None:
    outcome = run("bench", tiny_bundle, "--no-whole")
    assert outcome.code == 2
    assert "--no-whole is about --stream" in outcome.stderr


def test_the_command_prints_a_table_or_json(tiny_bundle: Path) -> None:
    arguments = ("bench", tiny_bundle, "--stream", "--seconds", "2", "--prompt-seconds", "1")
    outcome = run(*arguments, "--repeat", "1", "--threads", "1", "--json")
    assert outcome.code == 0, outcome.stderr
    (row,) = json.loads(outcome.stdout)["rows"]
    assert row["name"] == tiny_bundle.name
    assert len(row["first_audio_s"]) == 1


def test_streams_of_torch_rows_are_refused(tiny_checkpoint: Path) -> None:
    outcome = run("bench", "--checkpoint", tiny_checkpoint, "--rows", "eager", "--stream")
    assert outcome.code == 2
    assert "--stream measures bundles" in outcome.stderr
