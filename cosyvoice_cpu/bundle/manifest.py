"""`manifest.json`: what a bundle says about itself, parsed strictly.

Every field is required, an unknown one is refused, numbers are checked against their range, and a
key that appears twice is an error: two readers must never see two different bundles. The records
below are the format; `docs/bundle.md` explains each field.
"""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

import msgspec
from msgspec import Meta

from cosyvoice_cpu.bundle.paths import first_clash, unsafe_path
from cosyvoice_cpu.bundle.strict_json import parse_json
from cosyvoice_cpu.errors import ManifestError, UsageError

FORMAT: Final = "cosyvoice-cpu-bundle"
FORMAT_VERSION: Final = 3
MANIFEST_NAME: Final = "manifest.json"
DEFAULT_PRESET: Final = "default"  # of the solver, in every bundle
SPEAKERS_FOLDER: Final = "speakers"
MAX_MANIFEST_BYTES: Final = 16 * 2**20
HALF_STORAGE: Final = "float16-storage"  # a precision: weights stored half, computed float32

ComponentName = Literal[
    "speech_lm",
    "flow_encoder",
    "flow_estimator",
    "vocoder",
    "speaker_encoder",
    "speech_tokenizer",
    "text_tokenizer",
]
COMPONENT_NAMES: Final[tuple[ComponentName, ...]] = get_args(ComponentName)

_LARGEST_DENOMINATOR = 10**6  # of a rate: a float has only the nearest binary fraction
_LARGEST = 2**53  # the largest integer that every JSON reader keeps exact
# Numbers that decide what is computed and allocated are bounded, far above any model's: digests
# don't cover the manifest.
_MOST_IDS = 2**24
_MOST_FRAMES = 2**20  # six hours of mel frames
_MOST_WORDS = 2**28  # of the noise's generator: a second of drawing
_MOST_NOISE = 2**25  # numbers of the flow's fixed noise; the official has 1.2 million
_MOST_TIMES = 2**12  # of the flow estimator's table
_MOST_FILTERS = 2**22  # numbers of the mel filters; the official have 77,000
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Positive = Annotated[int, Meta(ge=1, le=_LARGEST)]
Id = Annotated[int, Meta(ge=0, le=_MOST_IDS)]
Ids = Annotated[int, Meta(ge=1, le=_MOST_IDS)]
Frames = Annotated[int, Meta(ge=1, le=_MOST_FRAMES)]
Few = Annotated[int, Meta(ge=1, le=2**12)]
Lookahead = Annotated[int, Meta(ge=0, le=1000)]
Rate = Annotated[int, Meta(ge=1, le=2**20)]  # Hz
Ratio = Annotated[float, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
Word = Annotated[str, Meta(pattern=r"\A[a-z0-9][a-z0-9._+-]*\Z", max_length=100)]


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A JSON object with exactly the fields of its class."""


class SourceFile(_Record, frozen=True, kw_only=True):
    """One file of the checkpoint that the bundle was made from."""

    size: Count  # bytes
    sha256: Sha256


class Source(_Record, frozen=True, kw_only=True):
    """The checkpoint: its name, and its files by path relative to the checkpoint folder."""

    name: Text
    files: dict[Text, SourceFile]


class Audio(_Record, frozen=True, kw_only=True):
    """The rates that tie tokens, mel frames and samples together."""

    sample_rate: Rate  # Hz of the output
    token_rate: Annotated[float, Meta(gt=0, le=1000)]  # speech tokens per second
    mel_frames_per_token: Annotated[float, Meta(gt=0, le=100)]

    @property
    def frames_per_token(self) -> Fraction:
        """Mel frames per token, exactly: 2, or 441/256 where 22.05 kHz meets 50 tokens/s."""
        return Fraction(self.mel_frames_per_token).limit_denominator(_LARGEST_DENOMINATOR)

    @property
    def samples_per_frame(self) -> int:
        """Audio samples per mel frame, the hop; a whole number in every manifest."""
        return int(self.sample_rate / self.frame_rate)

    @property
    def frame_rate(self) -> Fraction:
        """Mel frames per second."""
        return Fraction(self.token_rate).limit_denominator(_LARGEST_DENOMINATOR) * (
            self.frames_per_token
        )

    def frames_of(self, tokens: int) -> int:
        """Whole mel frames that `tokens` speech tokens last."""
        return int(tokens * self.frames_per_token)

    def tokens_within(self, frames: int) -> int:
        """Whole speech tokens that last at most `frames` mel frames."""
        return int(frames / self.frames_per_token)


class Shapes(_Record, frozen=True, kw_only=True):
    """Which input lengths a component's graphs take.

    static: one graph per size of the ladder, in `unit`; dynamic: any length; none: no length axis.
    """

    kind: Literal["static", "dynamic", "none"]
    unit: Literal["mel_frames", "feature_frames", "tokens", "none"]
    sizes: list[Frames]  # ascending; empty unless static


class FileEntry(_Record, frozen=True, kw_only=True):
    """One file of a component."""

    path: str  # `component/file`, relative to the bundle
    size: Count  # bytes
    sha256: Sha256


class Component(_Record, frozen=True, kw_only=True):
    """One part of the pipeline, its files and what was measured when it was made."""

    precision: Word  # "float32", "float16-storage", or what the recipe made
    engine: Word  # that runs it: a name in the run time's table of engines, or "tokenizers"
    recipe: Text | None  # quantization recipe; null for what export wrote
    shapes: Shapes
    files: Annotated[list[FileEntry], Meta(min_length=1)]
    parity: dict[Text, float]  # name of the measure to the measured error


class SpeechIds(_Record, frozen=True, kw_only=True):
    """Special ids as rows of the speech table, V already added. V is `speech_vocabulary`."""

    sos: Id
    task: Id
    stop_first: Id
    stop_count: Ids  # ids stop_first .. stop_first + stop_count - 1 all stop
    original_banned: Id  # the one id that the original bans below the minimum length


class Sampling(_Record, frozen=True, kw_only=True):
    """Repetition-aware sampling (CosyVoice cosyvoice/utils/common.py, ras_sampling)."""

    top_p: Annotated[float, Meta(gt=0, le=1)]
    top_k: Ids
    win_size: Ids  # tokens
    tau_r: Ratio


class MelSettings(_Record, frozen=True, kw_only=True):
    """The prompt mel's settings: samples at `audio.sample_rate`, frequencies in Hz."""

    n_fft: Annotated[int, Meta(ge=1, le=2**16)]
    hop: Positive
    win: Positive
    num_mels: Few
    fmin: Ratio
    fmax: Annotated[float, Meta(gt=0)] | None  # null: half the sample rate


SolverMethod = Literal["euler", "midpoint", "rk4"]


PromptFrames = Literal["solved", "cached"]


class SolverPreset(_Record, frozen=True, kw_only=True):
    """How the flow's equation is solved, with classifier-free guidance.

    Source: CosyVoice cosyvoice/flow/flow_matching.py, CausalConditionalCFM.
    """

    method: SolverMethod  # one, two or four evaluations of the network for a step
    steps: Annotated[int, Meta(ge=1, le=1000)]
    grid: list[Ratio]  # steps + 1 ascending times from 0 to 1
    guidance_rate: Annotated[
        float, Meta(ge=0, le=100)
    ]  # r in v = (1 + r) v_conditioned - r v_unconditioned
    guidance_range: tuple[Ratio, Ratio]  # times t at which r holds, both included; 0 elsewhere
    # "solved": the prompt's frames are solved with the target's, as the original does. "cached":
    # before them and without them, once for all requests of a speaker, as a stream does.
    prompt: PromptFrames = "solved"


class Synthesis(_Record, frozen=True, kw_only=True):
    """What the run time needs to know of the generation, so that it never asks for its name."""

    speech_vocabulary: Ids  # V: ids 0 .. V - 1 are speech
    special_ids: SpeechIds
    silent_tokens: list[Id]
    silent_run_limit: Count  # tokens kept of a silent run
    min_token_text_ratio: Ratio  # speech tokens per text id
    max_token_text_ratio: Annotated[float, Meta(ge=0, le=1000)]
    sampling: Sampling
    solver_presets: dict[Word, SolverPreset]  # "default" is one of them
    # Times that the flow estimator's table has a row for, ascending, as float32 has them; those of
    # all presets are among them.
    solver_times: Annotated[list[Ratio], Meta(min_length=1, max_length=_MOST_TIMES)]
    pre_lookahead_tokens: Lookahead
    chunk_frames: Frames  # mel frames of one block of the streaming mask
    max_frames: Frames  # mel frames of fixed noise, prompt included; the vocoder's lasts as long
    harmonic_noise_skip: Annotated[
        int, Meta(ge=0, le=_MOST_WORDS)
    ]  # 32-bit MT19937 words drawn before the harmonic noise
    harmonics: Annotated[
        int, Meta(ge=1, le=64)
    ]  # sine waves of the source, the fundamental included
    vocoder_lookahead_frames: Lookahead
    f0_lookahead_frames: Lookahead
    system_prefix: Annotated[str, Meta(max_length=4096)]
    end_of_prompt: Annotated[str, Meta(max_length=4096)]
    mel: MelSettings
    speaker_embedding_size: Few

    @property
    def solver(self) -> SolverPreset:
        """The preset that is used unless another one is asked for."""
        return self.solver_presets[DEFAULT_PRESET]

    @property
    def solver_steps(self) -> int:
        """Steps of that preset."""
        return self.solver.steps

    def preset(self, name: str) -> SolverPreset:
        """The preset of that name. Raises: UsageError listing those that there are."""
        if name not in self.solver_presets:
            raise UsageError(
                f"this bundle has no preset {name[:100]!r}",
                f"it has {', '.join(sorted(self.solver_presets))}",
            )
        return self.solver_presets[name]


class QualityResult(_Record, frozen=True, kw_only=True):
    """One measure that the quality gate looked at; `value` must be `bound` the `limit`."""

    component: ComponentName | None  # null: the whole pipeline
    preset: Word | None  # the solver preset that was judged; null: the networks, by the default
    measure: Text  # with its unit, as in "sqnr_db"
    value: float
    bound: Literal["at_least", "at_most"]
    limit: float
    passed: bool


class Quality(_Record, frozen=True, kw_only=True):
    """What the quality gate found, and whether its refusal was overridden."""

    results: list[QualityResult]
    forced: bool

    def refuses(self, preset: str | None) -> bool:
        """Whether a preset was refused, or with None what does not depend on one."""
        return any(not r.passed for r in self.results if r.preset == preset)

    @property
    def overridden(self) -> bool:
        """Whether a refusal of the networks was overridden, and not of a preset alone."""
        of_presets = any(not r.passed for r in self.results if r.preset is not None)
        return self.forced and (self.refuses(None) or not of_presets)


class Manifest(_Record, frozen=True, kw_only=True):
    """The whole of `manifest.json`."""

    format: Literal["cosyvoice-cpu-bundle"]
    format_version: Literal[3]
    generation: Word
    created_by: Text
    source: Source
    audio: Audio
    components: dict[ComponentName, Component]
    synthesis: Synthesis
    quality: Quality


def parse_manifest(text: bytes, path: Path) -> Manifest:
    """The manifest in `text`, fully checked; `path` only names it in errors.

    Raises: ManifestError naming the file and the field, as in `$.components.vocoder.files[0].size`.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise _error(path, f"has {len(text)} bytes, at most {MAX_MANIFEST_BYTES} are read")
    try:
        tree = msgspec.json.decode(text)
        parse_json(text)
    except RecursionError as error:
        raise _error(path, "is nested too deeply") from error
    except (ValueError, msgspec.MsgspecError) as error:
        raise _error(path, str(error)) from error
    _check_version(tree, path)
    try:
        manifest = msgspec.convert(tree, Manifest)
    except msgspec.ValidationError as error:
        raise _error(path, _with_component_name(str(error), tree)) from error
    if problem := _first_problem(manifest):
        raise _error(path, problem)
    return manifest


def dump_manifest(manifest: Manifest) -> bytes:
    """The one JSON text of `manifest`: UTF-8, indented, fields in the order of the records.

    Raises: ManifestError if a value is one that `parse_manifest` would refuse.
    """
    if place := _first_not_finite(msgspec.to_builtins(manifest), "$"):
        raise _error(Path(MANIFEST_NAME), f"Expected a finite number - at `{place}`")
    compact = msgspec.json.encode(manifest, order="deterministic")
    text = msgspec.json.format(compact, indent=2) + b"\n"
    parse_manifest(text, Path(MANIFEST_NAME))
    return text


def _error(path: Path, problem: str) -> ManifestError:
    return ManifestError(
        f"{path}: {problem}", "copy the bundle again, or rebuild it with `cosyvoice-cpu export`"
    )


def _check_version(tree: Any, path: Path) -> None:
    """Tell a newer format from a broken one before the fields are looked at."""
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise _error(path, f"is not a bundle's manifest (`format` is not {FORMAT!r})")
    version = tree.get("format_version")
    if type(version) is int and version > FORMAT_VERSION:
        raise ManifestError(
            f"{path}: format_version is {version}, this cosyvoice-cpu reads {FORMAT_VERSION}",
            "update cosyvoice-cpu",
        )


def _with_component_name(message: str, tree: dict[str, Any]) -> str:
    """msgspec writes `$.components[...]`; say which component it was."""
    if "`$.components[...]" not in message:
        return message
    for name, component in tree["components"].items():
        try:
            msgspec.convert(component, Component)
        except msgspec.ValidationError:
            return message.replace("$.components[...]", f"$.components.{name}", 1)
    return message


def _first_not_finite(value: Any, place: str) -> str | None:
    members: list[tuple[str, Any]] = []
    if isinstance(value, float):
        return None if math.isfinite(value) else place
    if isinstance(value, dict):
        members = [(f"{place}.{key}", member) for key, member in value.items()]
    elif isinstance(value, list):
        members = [(f"{place}[{index}]", member) for index, member in enumerate(value)]
    found = (_first_not_finite(member, inner) for inner, member in members)
    return next((inner for inner in found if inner), None)


def _first_problem(manifest: Manifest) -> str | None:
    """What the types can't express: values that must agree with each other."""
    return (
        _files_problem(manifest)
        or _shapes_problem(manifest)
        or _rates_problem(manifest)
        or _ids_problem(manifest.synthesis)
        or _presets_problem(manifest.synthesis)
        or _judged_presets_problem(manifest)
        or _sizes_problem(manifest.synthesis)
    )


def _files_problem(manifest: Manifest) -> str | None:
    for name, component in manifest.components.items():
        for index, entry in enumerate(component.files):
            if reason := unsafe_path(entry.path, name):
                place = f"$.components.{name}.files[{index}].path"
                return f"the path {entry.path!r} {reason} - at `{place}`"
    entries = [entry.path for part in manifest.components.values() for entry in part.files]
    if clash := first_clash(entries):
        return f"the paths {clash[0]!r} and {clash[1]!r} name the same file on some systems"
    return None


def _shapes_problem(manifest: Manifest) -> str | None:
    for name, component in manifest.components.items():
        shapes, place = component.shapes, f"$.components.{name}.shapes"
        if (shapes.kind == "static") != bool(shapes.sizes):
            return f"sizes are given if and only if kind is `static` - at `{place}`"
        if sorted(set(shapes.sizes)) != shapes.sizes:
            return f"sizes are not ascending - at `{place}.sizes`"
        if (shapes.kind == "none") != (shapes.unit == "none"):
            return f"unit is `none` if and only if kind is `none` - at `{place}.unit`"
    return None


def _rates_problem(manifest: Manifest) -> str | None:
    audio, hop = manifest.audio, manifest.synthesis.mel.hop
    exact = audio.sample_rate / audio.frame_rate
    if exact != hop:
        return (
            f"the rates make {float(exact):g} samples a mel frame, synthesis.mel.hop is {hop}"
            " - at `$.audio.mel_frames_per_token`"
        )
    return None


def _presets_problem(synthesis: Synthesis) -> str | None:
    if DEFAULT_PRESET not in synthesis.solver_presets:
        return "there is no preset `default` - at `$.synthesis.solver_presets`"
    for name, preset in synthesis.solver_presets.items():
        place, grid = f"$.synthesis.solver_presets.{name}", preset.grid
        if len(grid) != preset.steps + 1:
            return f"{preset.steps} steps need {preset.steps + 1} times - at `{place}.grid`"
        if grid[0] != 0 or grid[-1] != 1 or sorted(set(grid)) != grid:
            return f"the times do not ascend from 0 to 1 - at `{place}.grid`"
        if preset.guidance_range[0] > preset.guidance_range[1]:
            return f"the range ends before it begins - at `{place}.guidance_range`"
    times = synthesis.solver_times
    if sorted(set(times)) != times or times[0] < 0 or times[-1] > 1:
        return "the times do not ascend within 0 to 1 - at `$.synthesis.solver_times`"
    return None


def _judged_presets_problem(manifest: Manifest) -> str | None:
    for index, result in enumerate(manifest.quality.results):
        known = manifest.synthesis.solver_presets
        if result.preset is not None and result.preset not in known:
            place = f"$.quality.results[{index}].preset"
            return f"there is no preset {result.preset!r} - at `{place}`"
    return None


def _ids_problem(synthesis: Synthesis) -> str | None:
    vocabulary, ids = synthesis.speech_vocabulary, synthesis.special_ids
    for field in ids.__struct_fields__:
        if field != "stop_count" and getattr(ids, field) < vocabulary:
            return (
                f"{getattr(ids, field)} is a speech id (below speech_vocabulary {vocabulary})"
                f" - at `$.synthesis.special_ids.{field}`"
            )
    for index, token in enumerate(synthesis.silent_tokens):
        if token >= vocabulary:
            place = f"$.synthesis.silent_tokens[{index}]"
            return f"{token} is not a speech id (speech_vocabulary is {vocabulary}) - at `{place}`"
    if synthesis.max_token_text_ratio < synthesis.min_token_text_ratio:
        return "the maximum is below min_token_text_ratio - at `$.synthesis.max_token_text_ratio`"
    return None


def _sizes_problem(synthesis: Synthesis) -> str | None:
    """What would allocate or compute without measure, each number alone being in its range."""
    mel, place = synthesis.mel, "$.synthesis"
    if synthesis.max_frames * mel.num_mels > _MOST_NOISE:
        return f"max_frames and num_mels make more than {_MOST_NOISE} values - at `{place}`"
    if mel.n_fft // 2 * mel.num_mels > _MOST_FILTERS:
        return f"n_fft and num_mels make more than {_MOST_FILTERS} values - at `{place}.mel`"
    if synthesis.vocoder_lookahead_frames <= synthesis.f0_lookahead_frames:
        return (
            "the vocoder looks no further ahead than its f0 predictor"
            f" - at `{place}.vocoder_lookahead_frames`"
        )
    if mel.hop > mel.n_fft:
        return f"the hop is longer than n_fft - at `{place}.mel.hop`"
    if mel.fmax is not None and mel.fmax <= mel.fmin:
        return "fmax is not above fmin - at `$.synthesis.mel.fmax`"
    if mel.win > mel.n_fft:
        return "the window is longer than n_fft - at `$.synthesis.mel.win`"
    return None
