"""`verify` passes good bundles and fails altered ones at the level where they are wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.networks_golden import CHECKPOINT
from support.quantization_examples import copy_of, float_bundle, int8_bundle, sign_again, stored

from cosyvoice_cpu.errors import BundleError, CheckpointError, UsageError
from cosyvoice_cpu.evaluation.parity.verify import Verification, verify_bundle
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.frontend.speakers import Speaker

FLIPPED = {  # a matrix of each network to the levels at which one flipped weight must show
    "speech_lm/layers.1.down.weight": ["tensor"],
    "flow_encoder/ahead.weight": ["tensor", "mel", "spectrum", "samples"],
    "flow_estimator/blocks.1.expand.weight": ["tensor", "mel", "spectrum", "samples"],
    "vocoder/conv_pre.weight": ["tensor", "spectrum", "samples"],
}


def speaker(**changes: object) -> Speaker:
    values: dict[str, object] = {
        "name": "anna",
        "generation": "cosyvoice3",
        "transcript": "",
        "prompt_text_ids": np.zeros(0, np.int32),
        "speech_tokens": np.arange(4, dtype=np.int32),
        "mel": np.zeros((8, 80), np.float32),
        "embedding": np.ones(192, np.float32),
    }
    return Speaker(**{**values, **changes})  # type: ignore[arg-type]


def altered(tmp_path: Path, change: Callable[[Path], None]) -> Path:
    """A copy of the float32 bundle with `change` made to it and its digests made again."""
    bundle = copy_of(float_bundle(), tmp_path)
    change(bundle)
    sign_again(bundle)
    return bundle


def blamed(result: Verification) -> set[str | None]:
    """Components that the first failing level names."""
    first = result.failed_levels[0]
    return {c.component for c in result.checks if c.level == first and not c.passed}


def test_a_good_bundle_passes_every_level_beside_its_checkpoint() -> None:
    result = verify_bundle(float_bundle(), checkpoint=CHECKPOINT)
    assert result.passed
    assert {check.level for check in result.checks} == {
        *("digests", "graphs", "tensor", "mel", "spectrum", "samples")
    }
    compared = [check for check in result.checks if check.value is not None]
    assert len(compared) == 12
    # Far from the limits: whoever changes a graph sees a tenth of the tolerance used up.
    assert all(c.value <= (c.limit or 1) / 10 for c in compared if c.value and c.limit)


def test_a_bundle_of_stored_halves_passes_its_own_limits(tmp_path: Path) -> None:
    half = tmp_path / "half"
    export_checkpoint(CHECKPOINT, half, max_seconds=4, front_end=False, storage="float16")
    result = verify_bundle(half, checkpoint=CHECKPOINT)
    assert result.passed
    velocity = next(check for check in result.checks if check.name == "velocity")
    assert velocity.limit == 1e-2
    assert velocity.value > 1e-6  # type: ignore[operator]


@pytest.mark.parametrize("recipe", ["int8", "dynamic-int8"])
def test_an_int8_bundle_is_judged_by_the_limits_of_its_recipe(recipe: str) -> None:
    result = verify_bundle(int8_bundle(recipe), against=float_bundle())
    assert result.passed
    by_name = {check.name: check for check in result.checks}
    assert by_name["mel"].measure == "sqnr_db"
    assert by_name["mel"].limit == 30
    assert by_name["mu"].measure == "relative_error"
    assert by_name["mu"].value == 0


def test_without_a_reference_files_graphs_and_speakers_are_checked() -> None:
    result = verify_bundle(float_bundle())
    assert result.passed
    assert {check.level for check in result.checks} == {"digests", "graphs"}


def test_one_changed_byte_fails_at_the_digests_and_nothing_else_is_run(tmp_path: Path) -> None:
    bundle = copy_of(float_bundle(), tmp_path)
    weight = stored(bundle / "vocoder" / "weights.safetensors", "conv_pre.weight")
    weight[0] = 1
    result = verify_bundle(bundle, checkpoint=CHECKPOINT)
    assert result.failed_levels == ["digests"]
    assert len(result.checks) == 1
    assert "weights.safetensors does not match its manifest entry" in result.checks[0].detail


@pytest.mark.parametrize("place", ["speech_lm/text_embedding", "speech_lm/speech_embedding"])
def test_a_table_that_is_not_finite_fails_at_the_graphs(place: str, tmp_path: Path) -> None:
    def spoil(bundle: Path) -> None:
        component, name = place.split("/")
        stored(bundle / component / "weights.safetensors", name)[-1, -1] = np.nan

    result = verify_bundle(altered(tmp_path, spoil))
    assert result.failed_levels == ["graphs"]
    (failed,) = [check for check in result.checks if not check.passed]
    assert failed.detail.endswith("of weights.safetensors is not finite")


@pytest.mark.parametrize("place", FLIPPED)
def test_one_flipped_weight_fails_at_its_networks_level(place: str, tmp_path: Path) -> None:
    component, name = place.split("/")

    def flip(bundle: Path) -> None:
        weight = stored(bundle / component / "weights.safetensors", name)
        largest = np.unravel_index(np.abs(weight).argmax(), weight.shape)
        weight[largest] *= -1

    result = verify_bundle(altered(tmp_path, flip), checkpoint=CHECKPOINT)
    assert result.failed_levels == FLIPPED[place]
    assert blamed(result) == {component}


@pytest.mark.parametrize("layer", ["blocks.0.qkv", "blocks.2.contract"])
def test_one_noised_layer_fails_at_tensor_and_all_after(layer: str, tmp_path: Path) -> None:
    def noise(bundle: Path) -> None:
        weight = stored(bundle / "flow_estimator" / "weights.safetensors", f"{layer}.weight")
        rng = np.random.default_rng(0)
        weight += (0.05 * weight.std() * rng.standard_normal(weight.shape)).astype(np.float32)

    result = verify_bundle(altered(tmp_path, noise), against=float_bundle())
    assert result.failed_levels == ["tensor", "mel", "spectrum", "samples"]
    assert blamed(result) == {"flow_estimator"}


@pytest.mark.parametrize(
    ("source", "target", "problem"),
    [
        (
            "flow_estimator/chunked-00200.onnx",
            "flow_estimator/full-00200.onnx",
            "full-00200.onnx is not the same network as the other sizes",
        ),
        (
            "flow_estimator/full-00150.onnx",
            "flow_estimator/full-00200.onnx",
            "full-00200.onnx takes x of shape [rows, 80, 150], not 200 frames",
        ),
        (
            "vocoder/generator-00050.onnx",
            "vocoder/generator-00100.onnx",
            "generator-00100.onnx takes source of shape [1, 24000], not 100 frames",
        ),
    ],
)
def test_one_swapped_graph_fails_at_the_graphs(
    source: str, target: str, problem: str, tmp_path: Path
) -> None:
    """Also at a size that the parity measures never run."""
    bundle = altered(tmp_path, lambda path: shutil.copyfile(path / source, path / target))
    result = verify_bundle(bundle)
    assert result.failed_levels == ["graphs"]
    failed = next(check for check in result.checks if not check.passed)
    assert failed.component == source.split("/", maxsplit=1)[0]
    assert problem in failed.detail


def test_both_masks_swapped_at_every_size_fail_at_tensor(tmp_path: Path) -> None:
    """Each ladder is one network then; only what it computes tells."""

    def swap(bundle: Path) -> None:
        for full in (bundle / "flow_estimator").glob("full-*.onnx"):
            chunked = full.with_name(full.name.replace("full", "chunked"))
            content = full.read_bytes()
            full.write_bytes(chunked.read_bytes())
            chunked.write_bytes(content)

    result = verify_bundle(altered(tmp_path, swap), checkpoint=CHECKPOINT)
    assert result.failed_levels[0] == "tensor"
    failed = {check.name for check in result.checks if not check.passed}
    assert {"velocity", "velocity, streaming"} <= failed


def test_a_graph_of_another_network_is_reported_and_the_rest_is_still_compared(
    tmp_path: Path,
) -> None:
    def swap(bundle: Path) -> None:
        shutil.copyfile(
            bundle / "flow_estimator" / "full-00100.onnx", bundle / "speech_lm" / "speech_lm.onnx"
        )
        shutil.copyfile(
            bundle / "flow_estimator" / "weights.safetensors",
            bundle / "speech_lm" / "weights.safetensors",
        )

    result = verify_bundle(altered(tmp_path, swap), against=float_bundle())
    assert result.failed_levels == ["tensor"]
    assert blamed(result) == {"speech_lm"}
    failed = [check for check in result.checks if not check.passed]
    assert [check.name for check in failed] == ["logits"]
    assert "holds no usable table" in failed[0].detail


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"generation": "cosyvoice2"}, "is a speaker for cosyvoice2, the bundle is cosyvoice3"),
        ({"speech_tokens": np.full(4, 501, np.int32)}, "has speech token 501"),
        ({"mel": np.zeros((8, 100), np.float32)}, "mel of shape [8, 100]"),
        ({"embedding": np.ones(256, np.float32)}, "has an embedding of 256 values"),
    ],
)
def test_a_speaker_of_another_model_fails_at_the_speakers(
    changes: dict[str, object], problem: str, tmp_path: Path
) -> None:
    folder = tmp_path / "speakers"
    folder.mkdir()
    speaker().save(folder / "anna.safetensors")
    speaker(**changes).save(folder / "bert.safetensors")
    result = verify_bundle(float_bundle(), speakers=folder)
    assert result.failed_levels == ["speakers"]
    assert [c.passed for c in result.checks if c.level == "speakers"] == [True, False]
    assert problem in next(check.detail for check in result.checks if not check.passed)


def test_a_speaker_made_with_another_encoder_fails_at_the_speakers(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    bundle = copy_of(tiny_bundle, tmp_path)
    (bundle / "speakers").mkdir()
    stranger = speaker(speaker_encoder_sha256="0" * 64)
    stranger.save(bundle / "speakers" / "anna.safetensors")
    result = verify_bundle(bundle)
    assert result.failed_levels == ["speakers"]
    failed = next(check for check in result.checks if not check.passed)
    assert "was made with another speaker encoder than the bundle's" in failed.detail


def test_another_checkpoint_than_the_bundles_fails_at_the_digests_and_at_tensor(
    tmp_path: Path,
) -> None:
    folder = shutil.copytree(CHECKPOINT, tmp_path / "checkpoint")
    import torch

    state = torch.load(folder / "flow.pt", weights_only=True)
    key = "decoder.estimator.proj_out.weight"
    state[key] = state[key] + 0.1
    torch.save(state, folder / "flow.pt")
    result = verify_bundle(float_bundle(), checkpoint=folder)
    failed = [check for check in result.checks if not check.passed]
    assert failed[0].level == "digests"
    assert failed[0].name == "flow.pt"
    assert blamed(result) == {None}
    assert "tensor" in result.failed_levels


def test_bundles_of_different_models_are_not_compared(tiny_bundle: Path) -> None:
    with pytest.raises(UsageError, match="are bundles of different models"):
        verify_bundle(float_bundle(), against=tiny_bundle)


def test_two_references_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="one thing at a time"):
        verify_bundle(float_bundle(), checkpoint=CHECKPOINT, against=int8_bundle())


def test_a_reference_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="gone does not exist"):
        verify_bundle(float_bundle(), checkpoint=tmp_path / "gone")
    with pytest.raises(BundleError, match="there is no bundle"):
        verify_bundle(float_bundle(), against=tmp_path / "gone")
