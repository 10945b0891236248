"""What comparisons of speech are tried on: damaged bundles, and a condition without a speaker."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from cosyvoice_cpu.bundle.manifest import MANIFEST_NAME
from cosyvoice_cpu.evaluation.quality.systems import Condition
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.synthesis.prompts import Prompt


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


def a_condition(stages: BundleStages) -> Condition:
    """A condition of fixed ids and a prompt of one second."""
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
    return Condition(
        lambda text: [len(word) for word in text.split()],
        prompt,
        [5, 6],
        stages.audio,
        stages.synthesis,
        stages.max_frames,
    )
