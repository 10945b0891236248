"""`verify --quality`: good bundles pass, damaged ones fail, and what is missing is said."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file
from support.command_line import lines, run
from support.networks_golden import CHECKPOINT

from cosyvoice_cpu.bundle.manifest import MANIFEST_NAME
from cosyvoice_cpu.bundle.reader import read_manifest
from cosyvoice_cpu.errors import SynthesisError, UsageError
from cosyvoice_cpu.evaluation.quality.checking import QualityReport, check_quality, is_embedded_demo
from cosyvoice_cpu.evaluation.quality.comparison import compare
from cosyvoice_cpu.evaluation.quality.estimators import Ears
from cosyvoice_cpu.evaluation.quality.measures import MEASURES, named
from cosyvoice_cpu.evaluation.quality.sentences import first_sentences
from cosyvoice_cpu.evaluation.quality.systems import Setting, Side
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.rules import synthesis_rules

TAUGHT = named(measure.name for measure in MEASURES if measure.mode == "teacher-forced")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quality") / "good"
    export_checkpoint(CHECKPOINT, path, max_seconds=6, front_end=False)
    return path


def damage(good: Path, bad: Path, component: str, noise: float) -> Path:
    """A copy of `good` whose component has one matrix noised, with a manifest that agrees."""
    shutil.copytree(good, bad)
    path = bad / component / "weights.safetensors"
    content = bytearray(path.read_bytes())
    matrices = {name: array for name, array in load_file(path).items() if array.ndim >= 2}
    name = sorted(matrices)[len(matrices) // 2]
    weight = matrices[name]
    rng = np.random.default_rng(0)
    noised = weight + rng.normal(0, noise * weight.std(), weight.shape)
    place = content.index(weight.tobytes())
    content[place : place + weight.nbytes] = noised.astype(np.float32).tobytes()
    path.write_bytes(content)
    manifest = json.loads((bad / MANIFEST_NAME).read_bytes())
    for entry in manifest["components"][component]["files"]:
        if entry["path"] == f"{component}/weights.safetensors":
            entry["sha256"] = hashlib.sha256(content).hexdigest()
    (bad / MANIFEST_NAME).write_text(json.dumps(manifest))
    return bad


def missed(report: QualityReport) -> set[str]:
    return {verdict.floor.measure for verdict in report.missed}


def setting_of(stages: BundleStages) -> Setting:
    """A setting of fixed ids and a prompt of one second."""
    rng = np.random.default_rng(0)
    prompt = Prompt(
        mode="zero-shot",
        text="",
        transcript_ids=(5, 6),
        speech_ids=tuple(range(25)),
        tokens=tuple(range(25)),
        mel=rng.normal(-6, 2, (50, 80)).astype(np.float32),
        embedding=rng.normal(size=192).astype(np.float32),
    )
    rules = synthesis_rules(stages.manifest, stages.max_frames)
    return Setting(lambda text: [len(word) for word in text.split()], prompt, [5, 6], rules)


def test_a_bundle_has_the_quality_of_its_checkpoint(bundle: Path) -> None:
    report = check_quality(bundle, checkpoint=CHECKPOINT, items=2, measures=TAUGHT)
    assert report.passed, missed(report)
    assert {verdict.floor.measure for verdict in report.verdicts} == {
        "logits_sqnr_db",
        "token_agreement",
        "mel_correlation",
        "mel_error_db",
        "voicing_agreement",
        "vocoder_snr_db",
        "audio_correlation",
        "loudness_change_db",
    }


@pytest.mark.parametrize(
    ("component", "measures"),
    [
        ("speech_lm", {"logits_sqnr_db", "token_agreement"}),
        ("flow_encoder", {"mel_error_db"}),
        ("flow_estimator", {"mel_error_db"}),
        ("vocoder", {"vocoder_snr_db"}),
    ],
)
def test_one_noised_layer_misses_the_floors_of_its_component(
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


def test_a_side_is_no_distance_from_itself(bundle: Path) -> None:
    report = check_quality(bundle, against=bundle, items=1, measures=TAUGHT)
    values = {row.measure.name: row.interval.value for row in report.table.rows()}
    for name in ("kl_nats", "mel_error_db", "f0_error_cents", "loudness_change_db"):
        assert values.get(name, 0.0) == 0.0
    for name in ("token_agreement", "mel_correlation", "audio_correlation"):
        assert values[name] == pytest.approx(1.0)


class Listening:
    """A recogniser that notes what it is given and understands the same words each time."""

    languages = frozenset({"en"})

    def __init__(self) -> None:
        self.lengths: list[int] = []

    def read_back(self, wave16k: np.ndarray) -> str:
        self.lengths.append(len(wave16k))
        return "the baker opened his shop"


def test_another_recogniser_fits_and_hears_both_sides_at_16_khz(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    ears = Listening()
    side = Side("a", stages)
    table = compare(
        side, side, first_sentences(1), setting=setting_of(stages), ears=Ears(recogniser=ears)
    )
    cells = table.items[0].cells
    seconds = cells["seconds_audio", "reference"].value
    assert ears.lengths == [pytest.approx(seconds * 16000, abs=1)] * 2
    assert cells["word_error_rate", "candidate"].value == pytest.approx(5 / 10)
    assert cells["word_errors_added", "both"].value == 0.0
    assert table.items[0].heard["candidate"] == "the baker opened his shop"


def test_nobody_listens_for_measures_that_need_no_words(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    ears = Listening()
    setting = setting_of(stages)
    measures = named(["seconds_audio"])
    one = first_sentences(1)
    compare(None, Side("a", stages), one, measures, setting=setting, ears=Ears(recogniser=ears))
    assert not ears.lengths


def test_values_that_are_not_finite_are_an_error_that_names_side_and_stage(
    bundle: Path, tmp_path: Path
) -> None:
    bad = damage(bundle, tmp_path / "bad", "vocoder", noise=float("nan"))
    with pytest.raises(SynthesisError) as caught:
        check_quality(bad, against=bundle, items=1)
    assert caught.value.what.startswith("the ")
    assert caught.value.what.endswith(f"of {bad} put out values that are not finite")


def test_bundles_of_different_models_are_not_compared(bundle: Path, tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="are of different models"):
        check_quality(bundle, against=tiny_bundle, items=1)


def test_two_references_at_once_are_refused(bundle: Path) -> None:
    with pytest.raises(UsageError, match="one thing at a time"):
        check_quality(bundle, against=bundle, checkpoint=CHECKPOINT, items=1)


def test_a_bundle_of_the_embedded_checkpoint_is_known_by_its_sources(bundle: Path) -> None:
    from cosyvoice_cpu.demo.embedded import VOICE

    manifest = read_manifest(bundle)
    assert not is_embedded_demo(manifest)
    entry = next(iter(manifest.source.files.values()))
    content = (VOICE / "cosyvoice3.yaml").read_bytes()
    files = {
        "cosyvoice3.yaml": msgspec.structs.replace(
            entry, size=len(content), sha256=hashlib.sha256(content).hexdigest()
        )
    }
    source = msgspec.structs.replace(manifest.source, files=files)
    assert is_embedded_demo(msgspec.structs.replace(manifest, source=source))
