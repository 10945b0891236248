"""OpenVINO as an engine: the bundle's own graphs, in float32 or bfloat16, for any length.

    openvino        float32: what ONNX Runtime computes, but for rounding
    openvino-bf16   bfloat16, where the processor multiplies in it

OpenVINO reads ONNX Runtime's fused operators as graphs of its own, those of dynamic INT8 too: there
the weights stay integers, and activations are rounded in groups of a row (`_GROUP`).
A compiled size costs 200 MB and seconds, so there is no ladder: one graph takes every length.
The vocoder is compiled once per machine; the result lies in the user's cache (`openvino_cache`).
Graphs in float64 stay with ONNX Runtime. Nothing that reports its use is loaded (`_core`).
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

from numpy.typing import NDArray

from cosyvoice_cpu.errors import BundleError, SynthesisError, UsageError, library_error
from cosyvoice_cpu.generations import GraphSpec, TensorSpec
from cosyvoice_cpu.generations.components import Arrays, Dim
from cosyvoice_cpu.runtime.graph import Engine, EngineOptions, Graph, GraphSource
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph
from cosyvoice_cpu.runtime.openvino_attention import separate_masks
from cosyvoice_cpu.runtime.openvino_cache import compiled_folder

_FLOAT32, _BFLOAT16 = "f32", "bf16"  # OpenVINO's names
_GROUP = 128  # activations that share a scale where weights are INT8; 0 would compute in float
_DEVICE = "CPU"
# Components whose compiled graphs are kept. The flow estimator's compute something else, NaN among
# it, when OpenVINO 2026.4 has read them back for a free length (docs/decisions.md).
_CACHED = ("vocoder",)
_LONGEST_REASON = 300  # characters
_TELEMETRY = "openvino_telemetry"


class OpenVinoGraph(Graph):
    """A compiled model. Each thread that runs it has a request of its own, which is kept."""

    private_weights = True

    def __init__(self, compiled: Any, spec: GraphSpec) -> None:
        """`compiled` as `Core.compile_model` gives it, of a graph that the table describes."""
        self._compiled = compiled
        names = _names(spec, len(compiled.outputs))
        self._inputs = [_tensor_spec(port, names) for port in compiled.inputs]
        self._outputs = [_tensor_spec(port, names) for port in compiled.outputs]
        self._idle: list[Any] = []
        self._lock = threading.Lock()

    @classmethod
    def open(cls, precision: str, source: GraphSource, options: EngineOptions) -> Graph:
        """Raises: MissingExtraError without the library, UsageError where the processor lacks
        bfloat16, BundleError if the bundle lists no such file or OpenVINO refuses it.
        """
        _require(precision)
        core = _core()
        if source.spec.arithmetic == "float64":
            return OnnxRuntimeGraph.open(source, options)
        path = _any_size(source).path
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # requests of several processes share the cores
            # Weights that are float in the bundle stay float: of these nothing is rounded.
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": _GROUP,
        }
        try:
            model = core.read_model(path)
            separate_masks(model)
            _free_length(model, source)
            if source.component not in _CACHED:
                return cls(core.compile_model(model, _DEVICE, settings), source.spec)
            kind = (source.variant, precision, str(options.threads))
            with compiled_folder(source.bundle, source.component, kind, _version()) as folder:
                if folder:
                    settings["CACHE_DIR"] = str(folder)
                return cls(core.compile_model(model, _DEVICE, settings), source.spec)
        except RuntimeError as error:  # the class of all of OpenVINO's own
            raise BundleError(
                f"{path} can't be loaded by OpenVINO {_version()}: {_reason(error)}",
                "take the engine onnxruntime",
            ) from error

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """Raises: SynthesisError where OpenVINO has no kernel for this processor."""
        with self._request() as request:
            try:
                request.infer(dict(feed), share_inputs=True)
            except RuntimeError as error:
                raise SynthesisError(
                    f"OpenVINO {_version()} can't compute on this processor: {_reason(error)}",
                    "take the engine onnxruntime",
                ) from error
            return {
                tensor.name: request.get_output_tensor(index).data.copy()
                for index, tensor in enumerate(self._outputs)
            }

    def close(self) -> None:
        self._idle.clear()
        self._compiled = None

    @contextmanager
    def _request(self) -> Iterator[Any]:
        with self._lock:
            request = self._idle.pop() if self._idle else self._compiled.create_infer_request()
        try:
            yield request
        finally:
            with self._lock:
                self._idle.append(request)


def has_bfloat16() -> bool:
    """Whether the processor multiplies in bfloat16. Raises: MissingExtraError."""
    return "BF16" in _core().get_property(_DEVICE, "OPTIMIZATION_CAPABILITIES")


def _reason(error: RuntimeError) -> str:
    """What OpenVINO says behind the places in its source that it names first."""
    lines = [line.strip() for line in str(error).splitlines()]
    said = [line for line in lines if line and not line.startswith("Exception from ")]
    return said[0][:_LONGEST_REASON] if said else type(error).__name__


def _require(precision: str) -> None:
    """Raises: MissingExtraError without the library, UsageError if the processor lacks bfloat16."""
    _core()
    if precision == _BFLOAT16 and not has_bfloat16():
        raise UsageError(
            "this processor does not multiply in bfloat16, so openvino-bf16 gains nothing",
            "take the engine openvino or onnxruntime",
        )


@cache
def _core() -> Any:
    # Its converter comes along and, where Intel's telemetry is installed, notes an id in the user's
    # home at once. Without, it has a stand-in of its own that does nothing.
    reporter = sys.modules.get(_TELEMETRY)
    sys.modules[_TELEMETRY] = None  # type: ignore[assignment]
    try:
        import openvino
    except ImportError as error:
        raise library_error(error, "the engine openvino needs its library", "openvino") from error
    finally:
        del sys.modules[_TELEMETRY]
        if reporter:
            sys.modules[_TELEMETRY] = reporter
    return openvino.Core()


def _version() -> str:
    import openvino

    version: str = openvino.get_version()
    return version.partition("-")[0]


def _any_size(source: GraphSource) -> GraphSource:
    """`source` as a file that exists: sizes of a ladder differ in the declared length alone."""
    sizes = source.bundle.component(source.component).shapes.sizes
    if not (source.spec.ladder and sizes):
        return source
    return GraphSource(source.bundle, source.component, source.variant, sizes[-1])


def _free_length(model: Any, source: GraphSource) -> None:
    """Open the axes that the ladder's symbol decides."""
    ladder = source.spec.ladder
    if ladder is None:
        return
    expected = {tensor.name: tensor.shape for tensor in source.spec.inputs}
    model.reshape(
        {
            port.any_name: [
                -1 if size.is_dynamic or _depends(dim, ladder.symbol) else size.get_length()
                for dim, size in zip(expected[port.any_name], port.partial_shape, strict=True)
            ]
            for port in model.inputs
        }
    )


def _depends(dim: Dim, symbol: str) -> bool:
    return isinstance(dim, str) and symbol in dim.split()


def _names(spec: GraphSpec, layers: int) -> set[str]:
    """Names of inputs, outputs and the caches of up to `layers` layers."""
    caches = [cache.tensors(layer) for cache in spec.caches for layer in range(layers)]
    tensors = (*spec.inputs, *spec.outputs, *(tensor for pair in caches for tensor in pair))
    return {tensor.name for tensor in tensors if tensor}


def _tensor_spec(port: Any, names: set[str]) -> TensorSpec:
    """An output may also be called as what it was computed from; that of `names` counts."""
    name = next(iter(port.names & names), port.any_name)
    shape = tuple(dim.get_length() if dim.is_static else "any" for dim in port.partial_shape)
    return TensorSpec(name, port.get_element_type().to_dtype().name, shape)


def _engine(precision: str) -> Engine:
    return Engine(
        partial(OpenVinoGraph.open, precision),
        any_length=True,
        require=partial(_require, precision),
    )


ENGINE = _engine(_FLOAT32)
BFLOAT16 = _engine(_BFLOAT16)
