"""What an export refuses, and what it leaves behind: a bundle that is whole, or nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file
from support.networks_golden import CHECKPOINT, FLOW_PROMPT, ids, relative_error
from support.networks_golden import stages as reference

from cosyvoice_cpu.checkpoint.folder import open_checkpoint
from cosyvoice_cpu.errors import CheckpointError, ParityError, UsageError
from cosyvoice_cpu.export import parity
from cosyvoice_cpu.export.exporter import export_checkpoint, needed_bytes
from cosyvoice_cpu.stages import load_bundle


def export(output: Path, **options: object) -> None:
    export_checkpoint(CHECKPOINT, output, max_seconds=4, front_end=False, **options)  # type: ignore[arg-type]


def test_a_graph_that_strays_from_torch_leaves_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(parity.FLOAT32_LIMITS, "waveform", 1e-12)
    with pytest.raises(ParityError, match="vocoder: waveform of the exported graph differs"):
        export(tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


def test_an_interrupt_during_export_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(component: str, done: float) -> None:
        if component == "vocoder":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tmp_path / "bundle", progress=interrupt)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": "round"}, "unknown shapes 'round'"),
        ({"storage": "int4"}, "unknown storage 'int4'"),
        ({"max_seconds": 301.0}, "--max-seconds 301 is out of range"),
        ({"max_seconds": float("nan")}, "--max-seconds nan is out of range"),
        ({"speech_lm": "xl"}, "has no speech LM 'xl'"),
    ],
)
def test_wrong_options_are_usage_errors(
    tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        export_checkpoint(CHECKPOINT, tmp_path / "bundle", front_end=False, **options)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("half", [False, True])
def test_the_disk_is_asked_for_what_the_bundle_takes(half: bool, tmp_path: Path) -> None:
    export(tmp_path / "b", storage="float16" if half else "float32")
    taken = sum(path.stat().st_size for path in (tmp_path / "b").rglob("*"))
    checkpoint = open_checkpoint(CHECKPOINT, front_end=False)
    assert taken <= needed_bytes(checkpoint, half=half) <= taken + 50_000_000
    weights = sum(path.stat().st_size for path in CHECKPOINT.glob("*.pt"))
    saved = needed_bytes(checkpoint, half=False) - needed_bytes(checkpoint, half=True)
    assert saved == weights // 2


def test_float16_storage_halves_the_weights_and_stays_close(tmp_path: Path) -> None:
    export(tmp_path / "full")
    export(tmp_path / "half", storage="float16")

    def weights(name: str) -> Path:
        return tmp_path / name / "flow_estimator" / "weights.safetensors"

    assert weights("half").stat().st_size < 0.6 * weights("full").stat().st_size
    stages = load_bundle(tmp_path / "half")
    mel = stages.tokens_to_mel(ids("flow_token"), **FLOW_PROMPT)
    assert relative_error(mel, reference().tokens_to_mel(ids("flow_token"), **FLOW_PROMPT)) < 1e-2
    parities = stages.manifest.components["flow_estimator"].parity  # type: ignore[attr-defined]
    assert 0 < parities["velocity_full"] < 1e-2


def test_dynamic_shapes_take_lengths_beyond_max_seconds(tmp_path: Path) -> None:
    export_checkpoint(
        CHECKPOINT, tmp_path / "bundle", shapes="dynamic", max_seconds=2, front_end=False
    )
    stages = load_bundle(tmp_path / "bundle")
    tokens = ids("flow_token") * 6
    mel = stages.tokens_to_mel(tokens, **FLOW_PROMPT)
    assert relative_error(mel, reference().tokens_to_mel(tokens, **FLOW_PROMPT)) < 1e-3


def test_each_weight_is_on_disk_once(tmp_path: Path) -> None:
    """Graphs of all sizes hold no weights of their own: they point into one safetensors file."""
    export(tmp_path / "bundle")
    for component in ("speech_lm", "flow_encoder", "flow_estimator", "vocoder"):
        folder = tmp_path / "bundle" / component
        names = set(load_file(folder / "weights.safetensors"))
        for path in folder.glob("*.onnx"):
            graph = onnx.load(path, load_external_data=False).graph
            inline = [t for t in graph.initializer if t.data_location != t.EXTERNAL]
            assert sum(t.ByteSize() for t in inline) < 20_000, path.name
            outside = [t for t in graph.initializer if t.data_location == t.EXTERNAL]
            assert {t.name for t in outside} <= names
            assert {t.external_data[0].value for t in outside} == {"weights.safetensors"}


def test_a_file_of_another_model_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint"
    shutil.copytree(CHECKPOINT, folder)
    shutil.copyfile(folder / "hift.pt", folder / "flow.pt")
    with pytest.raises(CheckpointError, match=r"flow\.pt"):
        export_checkpoint(folder, tmp_path / "bundle", front_end=False)
    assert not (tmp_path / "bundle").exists()


def test_two_exports_of_one_checkpoint_are_the_same_bytes(tmp_path: Path) -> None:
    export(tmp_path / "a")
    export(tmp_path / "b")
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file():
            other = tmp_path / "b" / path.relative_to(tmp_path / "a")
            assert path.read_bytes() == other.read_bytes(), path.name


def test_nan_in_the_output_counts_as_infinite_error() -> None:
    assert parity.relative_error(np.array([np.nan]), np.array([1.0])) == float("inf")
    assert parity.relative_error(np.zeros(3), np.zeros(2)) == float("inf")
