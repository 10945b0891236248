"""torch as an engine: the deployed networks on a bundle's own weights, float32 or static INT8.

    load_bundle(path, engines=dict.fromkeys(components, "torch"))

A second opinion on what ONNX Runtime computes, and the engine whose networks FX observes: one class
per component, the same that the export traces. Lengths, padding, solver, noise and errors are the
stages' own, so that two engines on one bundle differ in arithmetic only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from cosyvoice_cpu.bundle.integer_weights import SCALE
from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.errors import BundleError
from cosyvoice_cpu.generations import TensorSpec, generation_named
from cosyvoice_cpu.generations.components import WEIGHTS_FILE, Arrays
from cosyvoice_cpu.networks.deployed.storage import load_stored, stored_config
from cosyvoice_cpu.networks.int8_layers import take_int8_layers
from cosyvoice_cpu.runtime.graph import BoundGraph, Engine, EngineOptions, Graph, GraphSource


def load_network(
    bundle: Bundle, name: ComponentName, tensors: Mapping[str, Tensor] | None = None
) -> Any:
    """The deployed network of a component, on its own weights or on `tensors` of the same names.

    Its float weights are the mapped file's own pages. Raises: BundleError if the file is damaged or
    of another network, UsageError if a layer's kernel is not one that torch runs.
    """
    spec = generation_named(bundle.manifest.generation).components[name]
    path = bundle.file(name, WEIGHTS_FILE)
    kind = spec.deployed_class()
    config = stored_config(path, kind.config_type)
    try:
        stored = dict(load_file(path) if tensors is None else tensors)
        network: nn.Module = kind.blank(config, stored)
        left = take_int8_layers(network, stored)
        # The run time reads the tables, row by row and in its own formats; no graph does.
        for table in kind.tables:
            delattr(network, table)
            left = {key: left[key] for key in left if key.removesuffix(SCALE) != table}
        load_stored(network, left)
    except (OSError, SafetensorError, KeyError, RuntimeError) as error:
        raise BundleError(
            f"{path} does not hold the weights of {name} ({error})", "export the checkpoint again"
        ) from error
    return network


class TorchGraph(Graph):
    """One graph of a component, computed by a deployed network."""

    def __init__(self, network: nn.Module, source: GraphSource) -> None:
        """`network` takes and gives what the component table says of the graph."""
        spec, component = source.spec, source.component_spec
        config = stored_config(
            source.bundle.file(source.component, WEIGHTS_FILE),
            component.deployed_class().config_type,
        )
        numbers = component.numbers(config)
        self._network = network
        self._inputs, self._outputs = (
            [TensorSpec(t.name, t.dtype, t.resolved(numbers)) for t in tensors]
            for tensors in component.tensors(spec, config)
        )
        written = [cache for cache in spec.caches if cache.writes_past]
        layers = range(component.layer_count(config))
        self._caches = [cache.tensors(layer)[0].name for cache in written for layer in layers]

    @property
    def inputs(self) -> Sequence[TensorSpec]:
        return self._inputs

    @property
    def outputs(self) -> Sequence[TensorSpec]:
        return self._outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """Caches have room for what is read; they are copied, and the present is that copy."""
        return self.compute({**feed, **{name: feed[name].copy() for name in self._caches}})

    @torch.no_grad()
    def compute(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        """As `run`, but caches are written in place: past and present are one memory."""
        results = self._network(*(_tensor(feed[tensor.name]) for tensor in self._inputs))
        values = results if isinstance(results, tuple) else (results,)
        names = (tensor.name for tensor in self._outputs)
        return {name: value.numpy() for name, value in zip(names, values, strict=True)}

    def bind(
        self, inputs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]
    ) -> BoundGraph:
        """In place where a cache's past and present are one array."""
        return _Bound(self, inputs, outputs)


class _Bound:
    def __init__(
        self,
        graph: TorchGraph,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._graph, self._inputs, self._outputs = graph, inputs, outputs

    def run(self, feed: Mapping[str, NDArray[Any]]) -> Arrays:
        results = self._graph.compute({**feed, **self._inputs})
        for name, array in self._outputs.items():
            value = results.pop(name)
            if not np.shares_memory(value, array):
                array[tuple(slice(length) for length in value.shape)] = value
        return results


def _open(source: GraphSource, options: EngineOptions) -> Graph:
    """`threads` becomes torch's setting, process-wide; nothing else counts."""
    torch.set_num_threads(options.threads)
    network = load_network(source.bundle, source.component)
    return TorchGraph(network.graph(source.variant), source)


ENGINE = Engine(_open, any_length=True)


def _tensor(array: NDArray[Any]) -> Tensor:
    with warnings.catch_warnings():  # some arrays are read-only, and no network writes to these
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(np.asarray(array, order="C"))
