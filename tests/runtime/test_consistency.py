"""What a manifest says of sizes is what graphs and tables have, or the bundle is refused."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from support.bundle_examples import edit_manifest
from support.quantization_examples import sign_again

from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.generations import GraphSpec, TensorSpec
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.consistency import require_rows, require_shapes
from cosyvoice_cpu.runtime.graph import Graph
from cosyvoice_cpu.utterances import random_utterances

SPEC = GraphSpec(
    "generator",
    inputs=(TensorSpec("mel", "float32", (1, "bins", "frames + ahead")),),
    outputs=(TensorSpec("wave", "float32", (1, "frames * hop")),),
)
SIZES = {"bins": 80, "frames": 10, "ahead": 4, "hop": 480}
MEL = TensorSpec("mel", "float32", (1, 80, 14))
WAVE = TensorSpec("wave", "float32", (1, 4800))


class Shaped(Graph):
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, mel: TensorSpec, wave: TensorSpec) -> None:
        self.inputs, self.outputs = (mel,), (wave,)

    def run(self, feed: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {}


def check(mel: TensorSpec = MEL, wave: TensorSpec = WAVE) -> None:
    require_shapes(Path("generator.onnx"), Shaped(mel, wave), SPEC, SIZES)


def test_fixed_and_open_axes_fit() -> None:
    check()
    check(
        TensorSpec("mel", "float32", (1, "any", "frames")), TensorSpec("wave", "float32", (1, 4800))
    )
    require_shapes(Path("a"), Shaped(MEL, WAVE), SPEC, {})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mel": TensorSpec("mel", "float32", (1, 100, 14))}, r"\[1, 100, 14\], expected .*80, 14"),
        ({"mel": TensorSpec("mel", "float32", (1, 80, 13))}, r"13\], expected float32 \[1, 80, 14"),
        ({"mel": TensorSpec("mel", "float32", (80, 14))}, r"mel is float32 \[80, 14\]"),
        ({"mel": TensorSpec("mel", "int64", (1, 80, 14))}, "mel is int64"),
        ({"mel": TensorSpec("mels", "float32", (1, 80, 14))}, "generator.onnx has no mel"),
        ({"wave": TensorSpec("wave", "float32", (1, 4801))}, r"wave is float32 \[1, 4801\]"),
    ],
)
def test_another_shape_type_or_name_is_refused(
    changes: dict[str, TensorSpec], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        check(**changes)


def test_tables_with_fewer_rows_than_the_manifest_needs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"modulation": np.zeros((10, 2), np.float32)}, path)
    require_rows(path, "modulation", 10, "preset")
    require_rows(path, "another layout", 10, "preset")
    with pytest.raises(BundleError, match="modulation has 10 rows, the manifest's preset needs 11"):
        require_rows(path, "modulation", 11, "preset")


def run(bundle: Path) -> None:
    stages = BundleStages.load(bundle)
    item = random_utterances(stages.manifest, tokens=8)[0]
    stages.speech_lm_logits(item.text_ids, item.tokens[:2])
    mel = stages.tokens_to_mel(
        item.tokens,
        prompt_tokens=item.prompt_tokens,
        prompt_mel=item.prompt_mel,
        embedding=item.embedding,
        steps=stages.synthesis.solver_steps,
    )
    stages.mel_to_waveform(mel)


GRID = [step / 11 for step in range(11)] + [1.0]


@pytest.mark.parametrize(
    "forged",
    [
        {"synthesis.special_ids.sos": 2700},
        {"synthesis.special_ids.task": 2600},
        {"synthesis.special_ids.stop_count": 5000},
        {"synthesis.special_ids.original_banned": 9999},
        {
            "synthesis.solver_presets.default": {
                "method": "euler",
                "steps": 11,
                "grid": GRID,
                "guidance_rate": 0.7,
                "guidance_range": [0.0, 1.0],
            }
        },
        {"synthesis.harmonics": 12},
        {"synthesis.f0_lookahead_frames": 5},
        {"synthesis.vocoder_lookahead_frames": 20},
        {"synthesis.speaker_embedding_size": 200},
        {"synthesis.mel.num_mels": 100},
        {"audio.sample_rate": 48000, "synthesis.mel.hop": 960},
    ],
    ids=lambda forged: next(iter(forged)),
)
def test_a_forged_number_is_refused_when_the_bundle_is_used(
    tiny_bundle: Path, tmp_path: Path, forged: dict[str, object]
) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    for place, value in forged.items():
        edit_manifest(bundle, place, value)
    with pytest.raises(BundleError):
        run(bundle)


@pytest.mark.parametrize("table", ["text_embedding", "speech_embedding"])
def test_a_table_of_another_width_is_refused(tiny_bundle: Path, tmp_path: Path, table: str) -> None:
    bundle = Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))
    path = bundle / "speech_lm" / "weights.safetensors"
    weights = load_file(path)
    weights[table] = np.ascontiguousarray(weights[table][:, :32])
    save_file(weights, path)
    sign_again(bundle)
    with pytest.raises(BundleError):
        run(bundle)
