"""Deployed networks to ONNX graphs by torch's exporter; the only module that calls it.

A network is traced once per graph, with its length as a symbol and without the values of its
weights: the result is the same for every checkpoint of the configuration, and is kept, for later
processes too (`export.trace_cache`). Weights are initializers without data under their stored
names; `export.graph_files` points them into the component's weight file and writes the sizes.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import msgspec
import onnx
import onnx_ir as ir
import torch
from torch import Tensor, nn

from cosyvoice_cpu.export import trace_cache
from cosyvoice_cpu.export.graph import OPSET
from cosyvoice_cpu.export.tidy import tidy
from cosyvoice_cpu.generations.components import ComponentSpec, Dim, GraphSpec, TensorSpec
from cosyvoice_cpu.networks.deployed.storage import linear_weights

_SAMPLE_LENGTH = 101  # of a symbol while tracing: nothing is computed, and no other size is that
_SMALL = 100_000  # elements; the exporter looks into tensors of 1024
_kept: dict[bytes, bytes] = {}


def traced(spec: ComponentSpec, graph: GraphSpec, network: Any) -> onnx.ModelProto:
    """The graph of a deployed `network`, its lengths free and its weights without data.

    A linear layer's weight is [in, out], as it is stored. Raises: ParityError if what torch's
    exporter made reads a weight in another form.
    """
    key = msgspec.json.encode([spec.deployed, graph.variant, network.config])
    if key not in _kept:
        model = trace_cache.look_up(key)
        if model is None:
            model = _trace(spec, graph, network).SerializeToString(deterministic=True)
            trace_cache.store(key, model)
        _kept[key] = model
    return onnx.load_model_from_string(_kept[key])


def _trace(spec: ComponentSpec, graph: GraphSpec, network: Any) -> onnx.ModelProto:
    blank = type(network).blank(network.config, network.state_dict())
    values = {name: _placeholder(tensor) for name, tensor in blank.state_dict().items()}
    blank.load_state_dict(values, assign=True)
    module = blank.graph(graph.variant)
    numbers = spec.numbers(network.config)
    inputs, outputs = spec.tensors(graph, network.config)
    symbols: dict[str, Any] = {}
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            tuple(_sample(entry, numbers) for entry in inputs),
            dynamo=True,
            opset_version=OPSET,
            input_names=[entry.name for entry in inputs],
            output_names=[entry.name for entry in outputs],
            dynamic_shapes=_arguments(module, [_axes(entry, numbers, symbols) for entry in inputs]),
            verbose=False,
        )
    assert program is not None
    prefix = next((f"{name}." for name, child in blank.named_children() if child is module), "")
    own = module.state_dict()
    for name, value in program.model.graph.initializers.items():
        if name in own:
            value.const_value = _without_data(own[name], name)
    model = ir.to_proto(program.model)
    kept = {entry.name for entry in (*inputs, *outputs)}
    tidy(model, graph.variant, kept, {name: prefix + name for name in own}, linear_weights(module))
    return model


def _placeholder(tensor: Tensor) -> Tensor:
    """As `tensor`, without a meaning: large ones are memory that nobody writes, so never there.

    The exporter merges small ones that are equal, so these are not.
    """
    if tensor.numel() > _SMALL:
        return torch.empty(tensor.shape, dtype=tensor.dtype)
    return torch.rand(tensor.shape, dtype=tensor.dtype)


def _sample(entry: TensorSpec, numbers: Mapping[str, int]) -> Tensor:
    """An input of the right type and axes; its values are never read."""
    free = {symbol: _SAMPLE_LENGTH for dim in entry.shape for symbol in _symbols(dim)}
    shape = [int(size) for size in entry.resolved({**free, **numbers})]
    return torch.zeros(shape, dtype=getattr(torch, entry.dtype))


def _axes(entry: TensorSpec, numbers: Mapping[str, int], lengths: dict[str, Any]) -> dict[int, Any]:
    """The free axes of an input by number, each a length, or that plus or times a number."""
    axes: dict[int, Any] = {}
    for axis, dim in enumerate(entry.shape):
        free = [symbol for symbol in _symbols(dim) if symbol not in numbers]
        if not free:
            continue
        length = lengths.setdefault(free[0], torch.export.Dim(free[0], min=2))
        known = [numbers[symbol] for symbol in _symbols(dim) if symbol in numbers]
        if known:
            length = length + known[0] if " + " in str(dim) else known[0] * length
        axes[axis] = length
    return axes


def _arguments(module: nn.Module, axes: list[dict[int, Any]]) -> tuple[Any, ...]:
    """`axes` of each input as `forward` takes them: a `*past` gathers those behind the named."""
    kinds = [entry.kind for entry in inspect.signature(module.forward).parameters.values()]
    named = sum(kind is inspect.Parameter.POSITIONAL_OR_KEYWORD for kind in kinds)
    gathered = (tuple(axes[named:]),) if inspect.Parameter.VAR_POSITIONAL in kinds else ()
    return (*axes[:named], *gathered)


def _symbols(dim: Dim) -> list[str]:
    return dim.split()[::2] if isinstance(dim, str) else []


def _without_data(tensor: Tensor, name: str) -> ir.ExternalTensor:
    dtype = ir.DataType.from_numpy(tensor.numpy().dtype)
    return ir.ExternalTensor("-", 0, 0, dtype, shape=ir.Shape(tensor.shape), name=name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on other packages and on its own inner workings."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
