"""Comparison of two systems: seeds, draws, and values that are not finite."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.quality_examples import damage

from cosyvoice_cpu.errors import SynthesisError
from cosyvoice_cpu.evaluation.quality.checking import check_quality
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, named

TAUGHT = named(  # what needs no estimator
    measure.name
    for measure in MEASURES
    if measure.mode == "teacher-forced" and measure.name not in {"mos_lost", "dnsmos_lost"}
)


def test_the_same_seed_gives_the_same_table_and_another_one_other_tokens(bundle: Path) -> None:
    names = named(["seconds_audio", "mel_error_db", "kl_nats"])
    tables = [
        check_quality(bundle, against=bundle, items=1, seed=seed, measures=names).table
        for seed in (0, 0, 1)
    ]
    rows = [[row.interval for row in table.rows()] for table in tables]
    assert rows[0] == rows[1]
    assert rows[0] != rows[2]


def test_more_draws_are_averaged_and_leave_what_is_taught_alone(bundle: Path) -> None:
    names = named(["seconds_audio", "mel_error_db", "kl_nats"])

    def values(seed: int, draws: int) -> dict[tuple[str, str], float]:
        report = check_quality(
            bundle, against=bundle, items=1, seed=seed, draws=draws, measures=names
        )
        return {(row.measure.name, row.of): row.interval.value for row in report.table.rows()}

    first, second, both = values(0, 1), values(1, 1), values(0, 2)
    for key in (("seconds_audio", "reference"), ("seconds_audio", "candidate")):
        assert both[key] == pytest.approx((first[key] + second[key]) / 2)
    assert both["mel_error_db", "both"] == first["mel_error_db", "both"]


def test_a_system_is_no_distance_from_itself(bundle: Path) -> None:
    report = check_quality(bundle, against=bundle, items=1, measures=TAUGHT)
    values = {row.measure.name: row.interval.value for row in report.table.rows()}
    for name in ("kl_nats", "mel_error_db", "f0_error_cents", "loudness_change_db"):
        assert values.get(name, 0.0) == 0.0
    for name in ("token_agreement", "mel_correlation", "audio_correlation"):
        assert values[name] == pytest.approx(1.0)


def test_values_that_are_not_finite_are_an_error_that_names_system_and_stage(
    bundle: Path, tmp_path: Path
) -> None:
    bad = damage(bundle, tmp_path / "bad", "vocoder", noise=float("nan"))
    with pytest.raises(SynthesisError) as caught:
        check_quality(bad, against=bundle, items=1)
    assert caught.value.what.startswith("the ")
    assert caught.value.what.endswith(f"of {bad} put out values that are not finite")
