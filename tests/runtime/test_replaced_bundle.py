"""A bundle that is replaced while a process speaks with it: the old model or one error, no mixture.

The files' side is in tests/bundle/test_loaded_files.py; here are the graphs that open late.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.quantization_examples import sign_again, stored

from cosyvoice_cpu.bundle import BundleWriter, open_bundle
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.utterances import random_utterances

SHORT, LONG = 8, 70  # speech tokens: two sizes of each ladder


def by_overwrite(bundle: Path, other: Path) -> None:
    source = open_bundle(other)
    manifest = source.manifest
    with BundleWriter(bundle, overwrite=True) as writer:
        writer.finish(
            generation=manifest.generation,
            source=manifest.source,
            audio=manifest.audio,
            components={name: writer.copy_component(source, name) for name in manifest.components},
            synthesis=manifest.synthesis,
            quality=manifest.quality,
        )


def by_cp(bundle: Path, other: Path) -> None:
    shutil.copytree(other, bundle, dirs_exist_ok=True)


def by_mv(bundle: Path, other: Path) -> None:
    shutil.rmtree(bundle)
    shutil.move(other, bundle)


def by_renaming_each_file(bundle: Path, other: Path) -> None:
    for path in [path for path in other.rglob("*") if path.is_file()]:
        os.replace(path, bundle / path.relative_to(other))


@pytest.mark.parametrize("low_memory", [False, True])
@pytest.mark.parametrize("replace", [by_overwrite, by_cp, by_mv, by_renaming_each_file])
def test_a_replaced_bundle_never_lends_its_graphs_to_the_loaded_one(
    tiny_bundle: Path,
    tmp_path: Path,
    replace: Callable[[Path, Path], None],
    low_memory: bool,
) -> None:
    bundle, other = (Path(shutil.copytree(tiny_bundle, tmp_path / name)) for name in ("a", "b"))
    for place in ("flow_estimator/blocks.0.expand.weight", "vocoder/conv_pre.weight"):
        component, name = place.split("/")
        stored(other / component / "weights.safetensors", name)[:] *= 2
    sign_again(other)
    stages = BundleStages.load(bundle, low_memory=low_memory)
    (utterance,) = random_utterances(stages.manifest, tokens=LONG)

    def mel(tokens: int) -> np.ndarray:
        return stages.tokens_to_mel(
            utterance.tokens[:tokens],
            prompt_tokens=utterance.prompt_tokens,
            prompt_mel=utterance.prompt_mel,
            embedding=utterance.embedding,
        )

    before = mel(SHORT)
    replace(bundle, other)
    for _ in range(2):  # the second try is no different
        with pytest.raises(BundleError, match="was replaced or changed since it was loaded"):
            mel(LONG)
        with pytest.raises(BundleError, match="was replaced or changed since it was loaded"):
            stages.mel_to_waveform(before)
    # What is open stays the old model, but for `cp`, which changed what is mapped.
    if replace is not by_cp and not low_memory:
        assert np.array_equal(mel(SHORT), before)
