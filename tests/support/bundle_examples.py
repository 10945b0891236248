"""Small real bundles, and ONNX graphs written byte by byte, for the tests of the bundle."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from cosyvoice_cpu.bundle import BundleWriter, ComponentDraft, Manifest
from cosyvoice_cpu.bundle.manifest import (
    Audio,
    ComponentName,
    MelSettings,
    Quality,
    Sampling,
    Shapes,
    SolverPreset,
    Source,
    SourceFile,
    SpeechIds,
    Synthesis,
)
from cosyvoice_cpu.decoding.solver import evaluation_times, time_grid
from cosyvoice_cpu.frontend.prompt_spec import PromptSpec

WEIGHTS = bytes(range(64))

SOLVER = SolverPreset(
    method="euler",
    steps=10,
    grid=[float(t) for t in time_grid(10)],
    guidance_rate=0.7,
    guidance_range=(0.0, 1.0),
)
SYNTHESIS = Synthesis(
    speech_vocabulary=6561,
    special_ids=SpeechIds(
        sos=6561,
        task=6563,
        stop_first=6561,
        stop_count=200,
        original_banned=6561,
    ),
    silent_tokens=[1, 2, 28],
    silent_run_limit=5,
    min_token_text_ratio=2.0,
    max_token_text_ratio=20.0,
    sampling=Sampling(top_p=0.8, top_k=25, win_size=10, tau_r=0.1),
    solver_presets={"default": SOLVER},
    solver_times=evaluation_times([SOLVER]),
    pre_lookahead_tokens=3,
    chunk_frames=50,
    max_frames=15000,
    harmonic_noise_skip=1234,
    harmonics=9,
    vocoder_lookahead_frames=8,
    f0_lookahead_frames=3,
    system_prefix="You are a helpful assistant.",
    end_of_prompt="<|endofprompt|>",
    mel=MelSettings(n_fft=1920, hop=480, win=1920, num_mels=80, fmin=0.0, fmax=None),
    speaker_embedding_size=192,
)
AUDIO = Audio(sample_rate=24000, token_rate=25.0, mel_frames_per_token=2.0)
PROMPT_SPEC = PromptSpec(
    generation="cosyvoice3",
    speech_vocabulary=6561,
    audio=AUDIO,
    mel=SYNTHESIS.mel,
    embedding_size=192,
    speaker_encoder_sha256="a" * 64,
    speech_tokenizer_sha256="b" * 64,
)
DRAFT = ComponentDraft(
    precision="float32",
    engine="onnxruntime",
    shapes=Shapes(kind="static", unit="mel_frames", sizes=[256, 512]),
    parity={"waveform": 1.5e-4},
)


def finish(writer: BundleWriter, components: Iterable[ComponentName] = ("vocoder",)) -> Manifest:
    """Finish a bundle of the given components with the example's settings."""
    return writer.finish(
        generation="cosyvoice3",
        source=Source(name="tiny", files={"hift.pt": SourceFile(size=3, sha256="ab" * 32)}),
        audio=AUDIO,
        components=dict.fromkeys(components, DRAFT),
        synthesis=SYNTHESIS,
        quality=Quality(results=[], forced=False),
    )


def make_bundle(path: Path, files: Mapping[str, bytes] | None = None) -> Path:
    """A bundle with one component, the vocoder: a graph and its weights, or the given files."""
    contents = {"vocoder.onnx": graph_of(tensor()), "w.bin": WEIGHTS} if files is None else files
    with BundleWriter(path) as writer:
        for name, content in contents.items():
            writer.path_for("vocoder", name).write_bytes(content)
        finish(writer)
    return path


def edit_manifest(bundle: Path, place: str, value: object) -> None:
    """Set one field of a bundle's manifest, as `components.vocoder.files.0.size`."""
    path = bundle / "manifest.json"
    tree = msgspec.json.decode(path.read_bytes())
    *parents, last = [int(part) if part.isdecimal() else part for part in place.split(".")]
    holder = tree
    for part in parents:
        holder = holder[part]
    holder[last] = value
    path.write_bytes(msgspec.json.encode(tree))


# ONNX graphs as protobuf messages; field numbers from onnx.proto3.


def varint(value: int) -> bytes:
    """`value` in base 128, lowest digit first."""
    digits = bytearray()
    while value >= 0x80:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])


def field(number: int, value: int | bytes | str) -> bytes:
    """One field: a number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    content = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(content)) + content


LOCATED = (("location", "w.bin"), ("offset", "0"), ("length", "64"))


def tensor(
    entries: Iterable[tuple[str, str]] = LOCATED,
    *,
    location: int | None = 1,
    dims: Iterable[int] = (4, 4),
    data_type: int = 1,
    extra: bytes = b"",
) -> bytes:
    """A TensorProto named `w`, by default 16 floats in `w.bin`."""
    message = b"".join(field(1, dim) for dim in dims) + field(2, data_type) + field(8, "w")
    for key, value in entries:
        message += field(13, field(1, key) + field(2, value))
    if location is not None:
        message += field(14, location)
    return message + extra


def located(**changes: str) -> bytes:
    """The example tensor with other values under its external_data keys."""
    return tensor(tuple((dict(LOCATED) | changes).items()))


def node(attribute: bytes) -> bytes:
    """A NodeProto with one attribute."""
    return field(4, "Constant") + field(5, field(1, "value") + attribute)


def graph_of(*initializers: bytes, content: bytes = b"") -> bytes:
    """A ModelProto whose graph has the given initializers, and `content` behind them."""
    tensors = b"".join(field(5, message) for message in initializers)
    return field(1, 9) + field(7, field(2, "g") + tensors + content)
