"""Which engine computes flow and vocoder: the one the user names, or the fastest that `tune` found.

An engine other than the manifest's is compared with it before it speaks: once for each bundle and
version of the libraries, on random ids. What was compared and what was fastest is kept in
`CACHE/engines/`, a file per bundle. The speech LM stays with ONNX Runtime, so a seed draws the same
tokens whatever engine is chosen.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np

from cosyvoice_cpu._version import __version__
from cosyvoice_cpu.arrays import Floats
from cosyvoice_cpu.bundle.atomic import write_file_atomically
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.component_runner import run_component
from cosyvoice_cpu.errors import EngineParityError, OutputError, UsageError
from cosyvoice_cpu.evaluation.distances import sqnr_db
from cosyvoice_cpu.progress import Notify, no_notice
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import engine_named
from cosyvoice_cpu.runtime.ladder import Engines
from cosyvoice_cpu.system.cache_folder import cache_folder, read_cached
from cosyvoice_cpu.utterances import Utterance, random_utterances

ONNX_RUNTIME = "onnxruntime"
ENGINE_NAMES = (ONNX_RUNTIME, "openvino", "openvino-bf16")
CHOOSABLE: tuple[ComponentName, ...] = ("flow_estimator", "vocoder")

ROUNDING = ("openvino-bf16",)  # engines that round what they multiply
_EXACT_DB = 60.0
# Of the gate (quantization.recipes.limits): of an engine that rounds, or of integer weights.
_ROUNDED_DB: Mapping[str, float] = {"mel": 30.0, "streamed mel": 30.0, "waveform": 20.0}
_MAX_BYTES = 2**16


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of one bundle's engines."""

    versions: str  # of the libraries, and ours
    fastest: dict[ComponentName, str] = {}  # by `tune`
    compared: list[str] = []  # engines that give what ONNX Runtime gives


def installed_engines() -> list[str]:
    """Those of `ENGINE_NAMES` that this installation and this processor have."""
    if find_spec("openvino") is None:
        return [ONNX_RUNTIME]
    from cosyvoice_cpu.runtime.openvino_engine import has_bfloat16

    return [name for name in ENGINE_NAMES if name != "openvino-bf16" or has_bfloat16()]


def chosen_engines(
    bundle: Bundle, engine: str | None, threads: int, notify: Notify = no_notice
) -> Engines:
    """The engine of each component that has a choice; of the others nothing is said.

    `engine` None takes what `tune` found, as far as it is installed. Raises: UsageError for an
    unknown engine, MissingExtraError without its library, EngineParityError if it gives something
    else than ONNX Runtime.
    """
    if engine is None:
        fastest = _read(bundle).fastest
        chosen = {name: fastest[name] for name in CHOOSABLE if name in fastest}
        if not any(name != ONNX_RUNTIME for name in chosen.values()):
            return {}
        known = installed_engines()
        chosen = {name: one if one in known else ONNX_RUNTIME for name, one in chosen.items()}
    elif engine in ENGINE_NAMES:
        chosen = dict.fromkeys(CHOOSABLE, engine)
    else:
        raise UsageError(f"there is no engine {engine!r}", f"engines: {', '.join(ENGINE_NAMES)}")
    for name in sorted({*chosen.values()} - {ONNX_RUNTIME}):
        require_parity(bundle, name, threads, notify)
    return chosen


def require_parity(
    bundle: Bundle, engine: str, threads: int, notify: Notify = no_notice
) -> dict[str, float]:
    """SQNR in dB of what the engine gives, by what; empty if it was compared before.

    Raises: EngineParityError if one is too low, MissingExtraError, UsageError.
    """
    record = _read(bundle)
    if engine in record.compared:
        return {}
    engine_named(engine).require()  # before anything is said
    notify(f"comparing {engine} with ONNX Runtime, once for this bundle")
    utterance = random_utterances(bundle.manifest, prompt=25, tokens=30)[0]
    want = _outputs(BundleStages(bundle, threads), utterance)
    engines: Engines = dict.fromkeys(CHOOSABLE, engine)
    got = _outputs(BundleStages(bundle, threads, engines=engines), utterance, want["mel"])
    found = {what: sqnr_db(got[what], want[what]) for what in want}
    for what, decibels in found.items():
        least = _least_db(bundle, engine, what)
        if not decibels >= least:
            raise EngineParityError(
                f"{engine} gives another {what} than ONNX Runtime with {bundle.path}: "
                f"{decibels:.1f} dB, at least {least:.0f} expected",
                "use --engine onnxruntime; another version of the library may do better",
            )
    _write(bundle, msgspec.structs.replace(record, compared=sorted({*record.compared, engine})))
    return found


def remember_fastest(bundle: Bundle, fastest: Mapping[ComponentName, str]) -> Path | None:
    """Keep what `tune` found, for commands without --engine; None where there is no cache."""
    return _write(bundle, msgspec.structs.replace(_read(bundle), fastest=dict(fastest)))


def _outputs(
    stages: BundleStages, utterance: Utterance, mel: Floats | None = None
) -> dict[str, Floats]:
    """Mel whole and streamed, and the waveform of `mel`, by default of the first."""
    own = run_component(stages, "flow_estimator", utterance)["mel"]
    stream = stages.flow_stream(
        prompt_tokens=utterance.prompt_tokens,
        prompt_mel=utterance.prompt_mel,
        embedding=utterance.embedding,
    )
    pieces = [stream.push(utterance.tokens), stream.finish()]
    given = own if mel is None else mel
    waveform = run_component(stages, "vocoder", utterance, mel=given)["waveform"]
    return {"mel": own, "streamed mel": np.concatenate(pieces, axis=1), "waveform": waveform}


def _least_db(bundle: Bundle, engine: str, what: str) -> float:
    component: ComponentName = "vocoder" if what == "waveform" else "flow_estimator"
    integers = bundle.component(component).precision.startswith("int")
    return _ROUNDED_DB[what] if integers or engine in ROUNDING else _EXACT_DB


def _versions() -> str:
    found = [f"cosyvoice-cpu {__version__}"]
    for library in ("onnxruntime", "openvino"):
        with contextlib.suppress(PackageNotFoundError):
            found.append(f"{library} {version(library)}")
    return ", ".join(found)


def _path(bundle: Bundle) -> Path | None:
    digest = hashlib.sha256()
    for component in bundle.manifest.components.values():
        for entry in component.files:
            digest.update(f"{entry.path} {entry.sha256} ".encode())
    folder = cache_folder()
    return folder / "engines" / f"{digest.hexdigest()[:32]}.json" if folder else None


def _read(bundle: Bundle) -> _Record:
    """What is kept; nothing if there is none, or it is of other versions."""
    nothing = _Record(_versions())
    path = _path(bundle)
    content = read_cached(path, _MAX_BYTES) if path else None
    if content is None:
        return nothing
    try:
        record = msgspec.json.decode(content, type=_Record)
    except msgspec.DecodeError:
        return nothing
    return record if record.versions == nothing.versions else nothing


def _write(bundle: Bundle, record: _Record) -> Path | None:
    path = _path(bundle)
    if path is None:
        return None
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_file_atomically(path, msgspec.json.encode(record))
    except (OSError, OutputError):
        return None
    return path
