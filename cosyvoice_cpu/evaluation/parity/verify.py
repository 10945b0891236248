"""`verify`: is this bundle what it says, and does it compute what it was made from?

    digests   every file is the one of the manifest
    graphs    every graph opens, and a ladder is one network at many sizes
    speakers  every speaker file was made for this model
    tensor, mel, spectrum, samples   parity with the checkpoint or another bundle, see `parity`

Levels are checked in this order; where the files are not as listed, nothing after is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cosyvoice_cpu.bundle.manifest import ComponentName, Manifest
from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.errors import (
    BundleError,
    CosyVoiceError,
    SpeakerError,
    UsageError,
    first_line,
)
from cosyvoice_cpu.evaluation.parity.limits import ROWS, judgement_of
from cosyvoice_cpu.evaluation.parity.outputs import Bound, Outputs
from cosyvoice_cpu.evaluation.parity.verify_graphs import graph_problems
from cosyvoice_cpu.frontend.prompt_spec import prompt_spec
from cosyvoice_cpu.frontend.speaker_folders import list_speakers
from cosyvoice_cpu.frontend.speakers import Speaker
from cosyvoice_cpu.progress import Progress, no_progress
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.stages import load_reference
from cosyvoice_cpu.utterances import Utterance, random_utterances

_GREEDY_TOKENS = 40
_NETWORKS: tuple[ComponentName, ...] = ("speech_lm", "flow_encoder", "flow_estimator", "vocoder")


@dataclass(frozen=True)
class Check:
    """One line of the result."""

    level: str
    name: str
    passed: bool
    component: ComponentName | None = None
    measure: str | None = None
    value: float | None = None  # null if the arrays could not be compared
    bound: Bound | None = None
    limit: float | None = None
    detail: str = ""


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle."""

    bundle: str
    against: str | None  # checkpoint or bundle that it was compared with
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    @property
    def failed_levels(self) -> list[str]:
        """Levels with a failure, in the order in which they are checked."""
        return list(dict.fromkeys(check.level for check in self.checks if not check.passed))


def verify_bundle(
    path: Path,
    *,
    checkpoint: Path | None = None,
    against: Path | None = None,
    speakers: Path | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Verification:
    """Check the bundle at `path`; with `checkpoint` or another bundle `against`, its parity too.

    `speakers` is a folder of speaker files beside the bundle's own. What is wrong with the bundle
    is in the result. Raises: UsageError for both references at once or for bundles of different
    models; CheckpointError, BundleError for a reference that can't be read; MissingExtraError.
    """
    if checkpoint and against:
        raise UsageError(
            "a bundle is compared with one thing at a time", "give --checkpoint or --against"
        )
    compared = checkpoint or against
    name = str(compared) if compared else None
    progress("digests", 0.0)
    try:
        bundle = open_bundle(path, recheck=True)
    except BundleError as error:
        return Verification(str(path), name, [Check("digests", "files", False, detail=error.what)])
    checks = [Check("digests", "files", True, detail=_counted(bundle.manifest))]
    checks += _graphs(bundle, progress)
    checks += _speakers(bundle, speakers)
    if checkpoint:
        progress("reading the checkpoint", 0.0)
        checks += _sources(bundle.manifest, checkpoint)
        reference = load_reference(
            checkpoint, threads, speech_lm=speech_lm_of(bundle.manifest, checkpoint)
        )
        checks += _parity(bundle, reference, [bundle.manifest], threads, progress)
    elif against:
        other = open_bundle(against)
        _require_same_model(bundle, other)
        manifests = [bundle.manifest, other.manifest]
        checks += _parity(bundle, BundleStages(other, threads), manifests, threads, progress)
    return Verification(str(path), name, checks)


def _graphs(bundle: Bundle, progress: Progress) -> Iterator[Check]:
    names = [name for name in _NETWORKS if name in bundle.manifest.components]
    for count, name in enumerate(names):
        progress(f"graphs of {name}", count / len(names))
        problems = graph_problems(bundle, name)
        yield Check("graphs", name, not problems, name, detail="; ".join(problems))


def _speakers(bundle: Bundle, folder: Path | None) -> Iterator[Check]:
    spec = prompt_spec(bundle.manifest)
    if folder and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", "give --speakers a folder")
    for place in [folder, bundle.speakers_folder]:
        for name, path in list_speakers([place] if place else []).items():
            try:
                Speaker.load(path, spec)
            except SpeakerError as error:
                yield Check("speakers", name, False, detail=error.what)
            else:
                yield Check("speakers", name, True)


def _sources(manifest: Manifest, folder: Path) -> Iterator[Check]:
    """Is `folder` the checkpoint that the manifest names?"""
    from cosyvoice_cpu.checkpoint.folder import open_checkpoint

    checkpoint = open_checkpoint(
        folder,
        speech_lm=speech_lm_of(manifest, folder),
        front_end="speaker_encoder" in manifest.components,
    )
    for file, digest in checkpoint.digests().items():
        expected = manifest.source.files.get(file)
        same = expected is not None and expected.sha256 == digest.sha256
        detail = "" if same else f"{folder / file} is not the file that the bundle was made from"
        yield Check("digests", file, same, detail=detail)


def speech_lm_of(manifest: Manifest, folder: Path) -> str:
    """Which of the checkpoint's language models the bundle was made from."""
    from cosyvoice_cpu.generations import GENERATIONS

    generation = GENERATIONS.get(manifest.generation)
    if generation is None:
        raise UsageError(
            f"the bundle is of generation {manifest.generation}, which has no torch reference here",
            f"known: {', '.join(GENERATIONS)}",
        )
    known = generation.speech_lm_files.items()
    return next((name for name, file in known if file in manifest.source.files), "base")


def _require_same_model(bundle: Bundle, other: Bundle) -> None:
    for field in ("generation", "audio", "synthesis"):
        if getattr(bundle.manifest, field) != getattr(other.manifest, field):
            raise UsageError(
                f"{bundle.path} and {other.path} are bundles of different models ({field})",
                "compare bundles that were made from one checkpoint",
            )


def _parity(
    bundle: Bundle,
    reference: Stages,
    manifests: Sequence[Manifest],
    threads: int,
    progress: Progress,
) -> Iterator[Check]:
    stages = BundleStages(bundle, threads)
    manifest = bundle.manifest
    (item,) = random_utterances(manifest)
    want = Outputs(reference, item)
    got = Outputs(stages, item, want)
    for count, row in enumerate(ROWS):
        progress(f"comparing {row.name}", count / len(ROWS))
        judgement = judgement_of(row, manifests)
        expected = getattr(want, row.output)
        value, detail = None, ""
        try:
            value = judgement.value(getattr(got, row.output), expected)
        except Exception as error:  # of the bundle's engine; ONNX Runtime's have no common class
            detail = error.what if isinstance(error, CosyVoiceError) else first_line(error)
        if value is not None and not math.isfinite(value):
            value, detail = None, "other shape, or values that are not finite"
        passed = value is not None and judgement.passes(value)
        yield Check(
            level=row.level,
            name=row.name,
            passed=passed,
            component=row.component,
            measure=judgement.measure,
            value=value,
            bound=judgement.bound,
            limit=judgement.limit,
            detail=detail,
        )
        precisions = {m.components["speech_lm"].precision for m in manifests}
        if row.output == "logits" and passed and precisions == {"float32"}:
            yield _greedy(stages, reference, item)


def _greedy(stages: Stages, reference: Stages, item: Utterance) -> Check:
    """Greedy decoding through the KV cache: in float32 the tokens are the same, every one."""
    tokens = [
        side.generate_speech_tokens(
            item.text_ids,
            prompt_text_ids=item.prompt_text_ids,
            prompt_speech_ids=item.prompt_tokens,
            sampler="greedy",
            min_tokens=1,
            max_tokens=_GREEDY_TOKENS,
        )
        for side in (stages, reference)
    ]
    longest = max(map(len, tokens))
    padded = [np.array(side + [-1] * (longest - len(side))) for side in tokens]
    different = float(np.count_nonzero(padded[0] != padded[1]))
    return Check(
        level="tensor",
        name="greedy tokens",
        passed=not different,
        component="speech_lm",
        measure="different_tokens",
        value=different,
        bound="at_most",
        limit=0.0,
    )


def _counted(manifest: Manifest) -> str:
    files = [entry for part in manifest.components.values() for entry in part.files]
    return f"{len(files)} files, {sum(entry.size for entry in files) / 1e6:.1f} MB"
