"""Is every graph of a ladder the same network at the size that its name says, its weights finite?

Parity is measured at a few sizes and reads few rows of the embedding tables; that it holds for the
others rests on these checks.
"""

from __future__ import annotations

import hashlib
import mmap
from collections import Counter
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.protobuf import read_fields
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.export.weights import not_finite
from cosyvoice_cpu.generations import generation_named
from cosyvoice_cpu.runtime.onnxruntime_engine import open_session

# Component to its graphs' variants and to the input whose last axis counts mel frames.
_LADDERS: dict[ComponentName, tuple[tuple[str, ...], str]] = {
    "flow_estimator": (("full", "chunked"), "x"),
    "vocoder": (("generator",), "source"),
}
_MODEL_GRAPH = 7  # field of ModelProto
_SIZED = frozenset({11, 12, 13})  # fields of GraphProto: inputs, outputs, shapes of values
_ALL_FIELDS = range(1, 2**29)


def graph_problems(bundle: Bundle, component: ComponentName) -> list[str]:
    """What is wrong with the component's graphs and weights, a line each; empty if nothing is.

    Every graph is opened, every weight is read. Graphs outside of a ladder are covered by that
    alone.
    """
    problems = []
    opened = {}
    for entry in bundle.component(component).files:
        file = entry.path.split("/")[1]
        if file.endswith(".onnx"):
            try:
                session = open_session(bundle.file(component, file), 1, prepack=False)
                opened[file] = {node.name: node.shape for node in session.get_inputs()}
            except BundleError as error:
                problems.append(error.what)
        elif file.endswith(".safetensors"):
            problems += _weight_problems(bundle.file(component, file))
    if component not in _LADDERS:
        return problems
    variants, sized_input = _LADDERS[component]
    spec = generation_named(bundle.manifest.generation).components[component]
    for variant in variants:
        graph = spec.graph(variant)
        files = [graph.file(size) for size in bundle.component(component).shapes.sizes]
        missing = [file for file in files if file not in opened]
        problems += [f"{file} is missing or can't be opened" for file in missing]
        files = [file for file in files if file in opened]
        problems += _strangers([bundle.file(component, file) for file in files])
        problems += _wrong_sizes(bundle, component, files, opened, sized_input)
    return problems


def _weight_problems(path: Path) -> list[str]:
    try:
        return [f"the weight {name} of {path.name} is not finite" for name in not_finite(path)]
    except BundleError as error:
        return [error.what]


def _strangers(paths: list[Path]) -> list[str]:
    """Graphs that are not the one that most of the ladder is."""
    networks = {path.name: _network(path) for path in paths}
    usual = [network for network, _ in Counter(networks.values()).most_common(1)]
    return [
        f"{name} is not the same network as the other sizes"
        for name, network in networks.items()
        if network not in usual
    ]


def _wrong_sizes(
    bundle: Bundle,
    component: ComponentName,
    files: list[str],
    opened: dict[str, dict[str, list[int | str]]],
    sized_input: str,
) -> list[str]:
    audio = bundle.manifest.audio
    unit = 1
    if sized_input == "source":  # samples of one mel frame
        unit = audio.samples_per_frame
    problems = []
    for file in files:
        shape = opened[file].get(sized_input, [])
        frames = int(file.removesuffix(".onnx").rpartition("-")[2])
        if not shape or shape[-1] != frames * unit:
            sizes = ", ".join(map(str, shape))
            problems.append(f"{file} takes {sized_input} of shape [{sizes}], not {frames} frames")
    return problems


def _network(path: Path) -> str:
    """Digest of all that does not depend on the size: nodes, weights, versions."""
    digest = hashlib.sha256()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        for field in read_fields(content, 0, len(content), _ALL_FIELDS):
            if field.number != _MODEL_GRAPH:
                digest.update(repr((field.number, field.wire_type)).encode())
                digest.update(content[field.low : field.high] or str(field.low).encode())
                continue
            for part in read_fields(content, field.low, field.high, _ALL_FIELDS):
                if part.number not in _SIZED:
                    digest.update(content[part.low : part.high])
    return digest.hexdigest()
