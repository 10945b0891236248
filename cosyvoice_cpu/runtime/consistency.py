"""Do a bundle's graphs and tables have the sizes that its manifest says?

Digests don't cover the manifest, and its numbers decide what graphs are fed and which rows of
tables are read. What disagrees is refused when a graph opens, before anything is computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cosyvoice_cpu.bundle.manifest import Manifest
from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.generations import GraphSpec, TensorSpec
from cosyvoice_cpu.runtime.graph import Graph

_HINT = "the manifest was changed or is of another model; get the bundle again, or export it again"


def manifest_sizes(manifest: Manifest) -> dict[str, int]:
    """Symbols of the component table whose numbers the manifest has."""
    synthesis = manifest.synthesis
    return {
        "mel_bins": synthesis.mel.num_mels,
        "speaker_embedding_size": synthesis.speaker_embedding_size,
        "harmonics": synthesis.harmonics,
        "samples_per_frame": manifest.audio.samples_per_frame,
        # All but the f0 predictor's share and the one frame of the inverse STFT's overlap.
        "lookahead": synthesis.vocoder_lookahead_frames - synthesis.f0_lookahead_frames - 1,
    }


def require_shapes(where: Path, graph: Graph, spec: GraphSpec, sizes: Mapping[str, int]) -> None:
    """Raises: BundleError unless `graph` takes and gives what the table and `sizes` say.

    An axis that the graph or the table leaves open fits any.
    """
    for found, expected in ((graph.inputs, spec.inputs), (graph.outputs, spec.outputs)):
        known = {tensor.name: tensor for tensor in found}
        for tensor in expected:
            if tensor.name not in known:
                raise BundleError(f"{where} has no {tensor.name}", _HINT)
            if not _fits(known[tensor.name], tensor, sizes):
                raise BundleError(
                    f"{where}: {tensor.name} is {_text(known[tensor.name])}, expected "
                    f"{_text(TensorSpec(tensor.name, tensor.dtype, tensor.resolved(sizes)))}",
                    _HINT,
                )


def require_rows(weights: Path, table: str, rows: int, what: str) -> None:
    """Raises: BundleError if the file has a `table` of fewer than `rows` rows for `what`."""
    try:
        entry = read_header(weights).tensors.get(table, {})
    except (OSError, ValueError) as error:
        raise BundleError(f"{weights} is no usable weight file ({error})", _HINT) from error
    shape: Sequence[int] = entry.get("shape") or [rows]
    if shape[0] < rows:
        raise BundleError(
            f"{weights}: {table} has {shape[0]} rows, the manifest's {what} needs {rows}", _HINT
        )


def _fits(found: TensorSpec, expected: TensorSpec, sizes: Mapping[str, int]) -> bool:
    shape = expected.resolved(sizes)
    return (
        found.dtype == expected.dtype
        and len(found.shape) == len(shape)
        and all(
            mine == theirs
            for mine, theirs in zip(found.shape, shape, strict=True)
            if isinstance(mine, int) and isinstance(theirs, int)
        )
    )


def _text(tensor: TensorSpec) -> str:
    return f"{tensor.dtype} {list(tensor.shape)}"
