"""A float32 bundle of the tiny checkpoint, its INT8 forms, and ways to break them."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from cosyvoice_cpu.bundle.digests import sha256_of
from cosyvoice_cpu.export.exporter import export_checkpoint
from cosyvoice_cpu.quantization import quantize_bundle
from cosyvoice_cpu.quantization.calibration.pairs import RANDOM
from support.networks_golden import CHECKPOINT

# The bundles here have no front end, so they are calibrated and measured on random ids.
quantize_on_random_ids = partial(quantize_bundle, calibration=RANDOM)

_FOLDER = tempfile.TemporaryDirectory(prefix="quantization-")  # removed when the tests end


@cache
def float_bundle() -> Path:
    """float32, a ladder up to 4 s, no front end; shared, so not to be changed."""
    folder = Path(_FOLDER.name)
    export_checkpoint(CHECKPOINT, folder / "float32", max_seconds=4, front_end=False)
    return folder / "float32"


def int8_bundle(recipe: str = "int8") -> Path:
    """The same by a recipe of the package; shared, so not to be changed."""
    return _quantized(recipe)


@cache
def _quantized(recipe: str) -> Path:
    path = float_bundle().with_name(recipe)
    quantize_on_random_ids(float_bundle(), path, recipe=recipe)
    return path


def copy_of(bundle: Path, folder: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(bundle, folder / f"copy-of-{bundle.name}"))


def sign_again(bundle: Path) -> None:
    """Make the manifest's sizes and digests those of the files, as whoever alters a bundle can."""
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    for component in manifest["components"].values():
        for entry in component["files"]:
            file = bundle / entry["path"]
            entry["size"], entry["sha256"] = file.stat().st_size, sha256_of(file)
    path.write_text(json.dumps(manifest))


def stored(file: Path, name: str) -> NDArray[np.generic]:
    """Tensor `name` of a safetensors file, as a map that writes through."""
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        entry = json.loads(opened.read(length))[name]
    dtype = {"F32": np.float32, "I8": np.int8, "U8": np.uint8}[entry["dtype"]]
    start = 8 + length + entry["data_offsets"][0]
    return np.memmap(file, dtype, "r+", offset=start, shape=tuple(entry["shape"]))


def fix_activation_ranges(graph: Path, largest: float) -> None:
    """Quantize what enters each integer product to 8 bits over one fixed range for all of them."""
    model = onnx.load(str(graph), load_external_data=False)
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(2 * largest / 255), "fixed.scale"),
            numpy_helper.from_array(np.uint8(128), "fixed.zero"),
        ]
    )
    nodes = []
    for node in model.graph.node:
        if node.op_type == "DynamicQuantizeMatMul":
            integers, floats = f"{node.name}/integers", f"{node.name}/floats"
            fixed = ["fixed.scale", "fixed.zero"]
            nodes.append(helper.make_node("QuantizeLinear", [node.input[0], *fixed], [integers]))
            nodes.append(helper.make_node("DequantizeLinear", [integers, *fixed], [floats]))
            node.input[0] = floats
        nodes.append(node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    graph.write_bytes(model.SerializeToString())
