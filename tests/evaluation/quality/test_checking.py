"""`verify --quality`: good bundles pass, damaged ones fail, and what is missing is said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest
from support.bundle_examples import edit_manifest
from support.command_line import lines, run
from support.networks_golden import CHECKPOINT
from support.quality_examples import damage

from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.evaluation.quality.checking import QualityReport, check_quality
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, named

TAUGHT = named(  # what needs no estimator
    measure.name
    for measure in MEASURES
    if measure.mode == "teacher-forced" and measure.name not in {"mos_lost", "dnsmos_lost"}
)


def missed(report: QualityReport) -> set[str]:
    return {decision.threshold.measure for decision in report.missed}


def test_a_bundle_has_the_quality_of_its_checkpoint(bundle: Path) -> None:
    report = check_quality(bundle, checkpoint=CHECKPOINT, items=2, measures=TAUGHT)
    assert report.passed, missed(report)
    assert {decision.threshold.measure for decision in report.decisions} == {
        "logits_sqnr_db",
        "token_agreement",
        "mel_correlation",
        "mel_error_db",
        "voicing_agreement",
        "vocoder_snr_db",
        "audio_correlation",
        "loudness_change_db",
    }


def test_a_stream_is_compared_with_the_whole_and_judged_by_listeners(bundle: Path) -> None:
    report = check_quality(bundle, streaming=True, items=1, measures=TAUGHT)
    values = {(row.measure.name, row.of): row.interval.value for row in report.table.rows()}
    assert values["mel_error_db", "both"] > 0
    assert values["token_agreement", "both"] == 1
    assert not report.decisions  # none of these measures is a listener's
    outcome = run("verify", bundle, "--streaming")
    assert outcome.code == 2
    assert "--streaming is about the table of --quality" in outcome.stderr


def test_a_preset_is_compared_with_the_default_and_judged_by_listeners(
    bundle: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    synthesis = read_manifest(other).synthesis
    unguided = msgspec.structs.replace(synthesis.solver, guidance_rate=0.0)
    presets = {**synthesis.solver_presets, "unguided": unguided}
    edit_manifest(other, "synthesis.solver_presets", msgspec.to_builtins(presets))
    report = check_quality(other, preset="unguided", items=1, measures=TAUGHT)
    values = {(row.measure.name, row.of): row.interval.value for row in report.table.rows()}
    assert values["mel_error_db", "both"] > 0.1
    assert values["token_agreement", "both"] == 1
    assert report.table.candidate == f"{other}, preset unguided"
    assert not report.decisions  # none of these measures is a listener's
    with pytest.raises(UsageError, match="no preset 'best'"):
        check_quality(other, preset="best", items=1)


@pytest.mark.parametrize(
    ("component", "measures"),
    [
        ("speech_lm", {"logits_sqnr_db", "token_agreement"}),
        ("flow_encoder", {"mel_error_db"}),
        ("flow_estimator", {"mel_error_db"}),
        ("vocoder", {"vocoder_snr_db"}),
    ],
)
def test_one_noised_layer_misses_the_thresholds_of_its_component(
    bundle: Path, tmp_path: Path, component: str, measures: set[str]
) -> None:
    bad = damage(bundle, tmp_path / "bad", component, noise=1.0)
    report = check_quality(bad, against=bundle, items=1, measures=TAUGHT)
    assert measures <= missed(report)
    if component == "speech_lm":
        assert missed(report) == measures


def test_the_command_fails_a_damaged_bundle_and_writes_the_table(
    bundle: Path, tmp_path: Path
) -> None:
    bad = damage(bundle, tmp_path / "bad", "flow_estimator", noise=1.0)
    prefix, pictures = tmp_path / "table", tmp_path / "pictures"
    arguments = [bad, "--quality", "--against", bundle, "--items", "2", "--json"]
    arguments += ["--output", prefix, "--pictures", pictures]
    outcome = run("verify", *map(str, arguments))
    assert outcome.code == 1
    content = json.loads(outcome.stdout)
    assert content["passed"] is False
    assert content["quality"]["passed"] is False
    assert {path.name for path in tmp_path.glob("table.*")} == {
        "table.md",
        "table.csv",
        "table.json",
    }
    assert json.loads((tmp_path / "table.json").read_text()) == content["quality"]
    assert sorted(path.name for path in pictures.iterdir()) == ["en01.png", "en02.png"]
    assert "failed" in outcome.stderr


def test_the_command_prints_the_table_of_a_good_bundle(bundle: Path) -> None:
    outcome = run("verify", bundle, "--quality", "--against", bundle, "--items", "1")
    assert outcome.code == 0, outcome.stderr
    row = next(line for line in outcome.stdout.splitlines() if "log-mel correlation" in line)
    assert "1.0000" in row
    assert ">= 0.9999" in row
    assert "pass" in row
    assert "not measured: a real voice: there is no speaker" in outcome.stderr


def test_options_of_the_table_without_quality_are_refused(bundle: Path) -> None:
    outcome = run("verify", bundle, "--pictures", "x", "--items", "3")
    assert outcome.code == 2
    assert outcome.stderr == lines("--items is about the table of --quality", "add --quality")


def test_without_a_reference_only_what_the_bundle_says_is_measured(bundle: Path) -> None:
    report = check_quality(bundle, items=2)
    assert report.table.reference is None
    assert {of for _, of in report.table.columns()} == {"candidate"}


def test_bundles_of_different_models_are_not_compared(bundle: Path, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="are of different models"):
        check_quality(bundle, against=tiny_bundle, items=1)


def test_two_references_at_once_are_refused(bundle: Path) -> None:
    with pytest.raises(UsageError, match="one thing at a time"):
        check_quality(bundle, against=bundle, checkpoint=CHECKPOINT, items=1)
