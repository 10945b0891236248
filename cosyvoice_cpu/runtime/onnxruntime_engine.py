"""ONNX Runtime as an engine, with its sessions as this project uses them.

Float weights stay where they are: without prepacking ONNX Runtime reads them from the mapped file,
so all sizes of a ladder, all sessions and all processes share one copy, and a session opens in
milliseconds. Integer weights are a quarter of the size and gain more from the kernel's own layout,
so they are repacked, once: the result is kept in the user's cache and mapped from there
(`runtime.prepacked_graphs`). Where it can't be kept, each session repacks for itself, and a ladder
keeps one size open, or up to three that threads use at the same time. `COSYVOICE_CPU_PREPACK=1`
repacks everything (`docs/performance.md` has the figures of both).

Activations come from one arena that all sessions of the process share
(`runtime.activation_arena`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from cosyvoice_cpu.bundle.manifest import HALF_STORAGE
from cosyvoice_cpu.errors import BundleError, first_line
from cosyvoice_cpu.generations import TensorSpec
from cosyvoice_cpu.generations.components import Arrays
from cosyvoice_cpu.runtime.activation_arena import share_arena
from cosyvoice_cpu.runtime.graph import BoundGraph, Engine, EngineOptions, Graph, GraphSource
from cosyvoice_cpu.runtime.integer_products import fast_products_are_exact
from cosyvoice_cpu.runtime.prepacked_graphs import PrepackedGraphs

log = logging.getLogger(__name__)

PREPACK_VARIABLE = "COSYVOICE_CPU_PREPACK"
_INTEGER_PRECISIONS = ("int8", "int4")
_ERROR_LEVEL = 3  # ONNX Runtime's severity; its warnings are about things that users can't change
_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"
_NAME_AND_VERSION = f"onnxruntime {ort.__version__}"
_SMALLEST_SHARED = 1 << 12  # bytes; smaller tensors stay in the graph
_DTYPES = {"float": "float32", "double": "float64"}  # others are called as in NumPy


class OnnxRuntimeGraph(Graph):
    """An ONNX Runtime session."""

    def __init__(self, session: Any, *, private_weights: bool = False) -> None:
        """`session` as `open_session` gives it."""
        self._session = session
        self.private_weights = private_weights
        self._inputs = [_tensor_spec(node) for node in session.get_inputs()]
        self._outputs = [_tensor_spec(node) for node in session.get_outputs()]
        self._names = [tensor.name for tensor in self._outputs]

    @classmethod
    def open(cls, source: GraphSource, options: EngineOptions) -> OnnxRuntimeGraph:
        """Raises: BundleError if the bundle lists no such file or ONNX Runtime refuses it."""
        integer = source.precision.startswith(_INTEGER_PRECISIONS)
        if integer and (kept := _open_kept(source, options)) is not None:
            return cls(kept)
        # Without a ladder the copy is one; with one, each size would have its own.
        prepack = integer and not (options.low_memory and source.spec.ladder)
        session = open_session(
            source.path,
            options.threads,
            prepack=prepack,
            fold=source.precision != HALF_STORAGE,
            rewrite=integer,
            record=options.recording.folder if options.recording else None,
        )
        if options.recording:
            options.recording.opened.append((source.path.stem, session.end_profiling))
        return cls(session, private_weights=prepack)

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        return dict(zip(self._names, self._session.run(self._names, feed), strict=True))

    def close(self) -> None:
        self._session = None

    def bind(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> BoundGraph:
        """In place: nothing is copied. The arrays are contiguous and as large as the outputs."""
        return _Binding(self._session, self._names, inputs, outputs)


class _Binding:
    """One set of buffers on a session; of one request, so used by one thread at a time."""

    def __init__(
        self,
        session: Any,
        names: Sequence[str],
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        # The binding holds addresses; these hold the memory.
        self._values = {
            id(array): ort.OrtValue.ortvalue_from_numpy(array)
            for array in (*inputs.values(), *outputs.values())
        }
        for name, array in inputs.items():
            self._binding.bind_ortvalue_input(name, self._values[id(array)])
        for name, array in outputs.items():
            self._binding.bind_ortvalue_output(name, self._values[id(array)])
        self._free = [name for name in names if name not in outputs]

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        for name, array in feed.items():
            self._binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name in self._free:
            self._binding.bind_output(name)
        self._session.run_with_iobinding(self._binding)
        values = self._binding.get_outputs()[-len(self._free) :]
        return {name: value.numpy() for name, value in zip(self._free, values, strict=True)}


ENGINE = Engine(OnnxRuntimeGraph.open)


def _open_kept(source: GraphSource, options: EngineOptions) -> Any | None:
    """A session on the prepacked graph in the user's cache, made if need be; None without one."""
    if not (options.keep_prepacked and source.bundle.checked) or options.recording:
        return None
    kept = PrepackedGraphs(source.bundle.component(source.component), _NAME_AND_VERSION)
    path = kept.make(source.path.name, partial(_save_prepacked, source.path))
    if path is None:
        return None
    try:
        return open_session(path, options.threads, prepack=True, rewrite=False)
    except BundleError as error:  # dropped meanwhile by another process
        log.info("%s", error.what)
        return None


def _save_prepacked(graph: Path, path: Path, weights_name: str) -> None:
    """Write `graph` as ONNX Runtime rewrites it, with its weights packed, beside it by name."""
    options = session_options(1)
    options.optimized_model_filepath = str(path)
    for entry, value in {
        "session.save_external_prepacked_constant_initializers": "1",
        "session.optimized_model_external_initializers_file_name": weights_name,
        "session.optimized_model_external_initializers_min_size_in_bytes": str(_SMALLEST_SHARED),
    }.items():
        options.add_session_config_entry(entry, value)
    ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def open_session(
    model: Path | bytes,
    threads: int,
    *,
    prepack: bool = False,
    fold: bool = True,
    rewrite: bool = True,
    record: Path | None = None,
    weights_folder: Path | None = None,
) -> Any:
    """An `onnxruntime.InferenceSession` on a graph file, or on a model in memory.

    `prepack` lets the engine keep repacked copies of the weights, which INT4 and INT8 block
    kernels can't do without. `fold` off keeps weights that are stored half from being expanded in
    memory once per session. `rewrite` off leaves out fusions and layouts: the graphs of the
    exporter compute the same in the same time and open in half of it. `record` is the folder for
    the kernels' times. `weights_folder` has the external weights of a model in memory. Raises:
    BundleError if ONNX Runtime refuses the graph.
    """
    options = session_options(threads)
    if not rewrite:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if share_arena():
        options.add_session_config_entry("session.use_env_allocators", "1")
    if not (prepack or os.environ.get(PREPACK_VARIABLE) == "1"):
        options.add_session_config_entry("session.disable_prepacking", "1")
    if weights_folder:
        options.add_session_config_entry(_WEIGHTS_FOLDER, str(weights_folder))
    where = str(model) if isinstance(model, Path) else f"a graph of {weights_folder}"
    if record:
        options.enable_profiling = True
        options.profile_file_prefix = str(record / Path(where).stem)
    try:
        return ort.InferenceSession(
            model if isinstance(model, bytes) else str(model),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[] if fold else ["ConstantFolding"],
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        raise BundleError(
            f"{where} can't be loaded by ONNX Runtime {ort.__version__}: {first_line(error)}",
            "update onnxruntime, or export the checkpoint again",
        ) from error


def session_options(threads: int) -> ort.SessionOptions:
    """What decides how fast and how exactly kernels compute."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERROR_LEVEL
    # A plan of a run's memory is one more block beside what the first run left in the arena.
    options.enable_mem_pattern = False
    # Sessions take turns; one that spins while another computes doubles the time per token.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if not fast_products_are_exact():
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def _tensor_spec(node: Any) -> TensorSpec:
    """`node.type` is as in "tensor(float)"; a dimension without a name comes as None."""
    kind = node.type.partition("(")[2].removesuffix(")")
    shape = tuple("any" if dim is None else dim for dim in node.shape)
    return TensorSpec(node.name, _DTYPES.get(kind, kind), shape)
