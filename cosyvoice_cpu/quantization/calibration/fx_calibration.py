"""What enters the layers of one component while items are spoken, found by FX's observers.

    deployed network ─> prepare_fx ─> an engine of its own ─> run_component on each item
        ─> LayerParameters ─> the kernel static-int8 ─> an ordinary bundle, for two engines

The network is the one that the export traces and the torch engine runs. The other components, and
the other graphs of this one, run in float32 as they do when the bundle speaks.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.component_runner import run_component
from cosyvoice_cpu.errors import UsageError
from cosyvoice_cpu.export.weights import Weight
from cosyvoice_cpu.networks.torch_engine import TorchGraph, load_network
from cosyvoice_cpu.progress import Share
from cosyvoice_cpu.quantization.calibration.fx_observers import METHOD, UncalledLayerError, observe
from cosyvoice_cpu.quantization.kernels.parameters import Calibration
from cosyvoice_cpu.quantization.recipes.recipe import Activations
from cosyvoice_cpu.runtime.bundle_stages import BundleStages
from cosyvoice_cpu.runtime.graph import Engine, EngineOptions, Graph, GraphSource
from cosyvoice_cpu.runtime.onnxruntime_engine import OnnxRuntimeGraph
from cosyvoice_cpu.utterances import Utterance

# The graph of a component whose layers can be calibrated.
OBSERVED_GRAPHS: dict[ComponentName, str] = {
    "speech_lm": "speech_lm",
    "flow_encoder": "flow_encoder",
    "flow_estimator": "full",
    "vocoder": "generator",
}


def calibrate(
    bundle: Bundle,
    name: ComponentName,
    layers: Sequence[str],
    activations: Activations,
    items: Sequence[Utterance],
    *,
    weights: Mapping[str, Weight] | None = None,
    threads: int = 1,
    progress: Share = lambda done: None,
) -> Calibration:
    """What enters `layers` of a component of a float32 bundle while `items` are spoken.

    `weights` take the place of the component's own, under the same names.
    Raises: UsageError for a layer that the graph of the component does not have.
    """
    network = load_network(bundle, name, None if weights is None else stored_tensors(weights))

    def run(observed: nn.Module) -> None:
        engine = engine_on(observed, OBSERVED_GRAPHS[name])
        stages = BundleStages(bundle, threads, engines={name: engine})
        for count, item in enumerate(items):
            run_component(stages, name, item)
            progress((count + 1) / len(items))

    try:
        found, _ = observe(network, network.leaves, layers, activations, run)
    except UncalledLayerError as uncalled:
        raise UsageError(
            f"{uncalled} of {name} can't be calibrated", "keep it in float32 in the recipe"
        ) from None
    return Calibration(METHOD, activations.observer, [item.name for item in items], found)


def engine_on(network: nn.Module, variant: str) -> Engine:
    """An engine that has `network` compute the graph `variant`, and ONNX Runtime the others."""

    def open_graph(source: GraphSource, options: EngineOptions) -> Graph:
        if source.variant != variant:
            return OnnxRuntimeGraph.open(source, options)
        torch.set_num_threads(options.threads)
        return TorchGraph(network, source)

    return Engine(open_graph, any_length=True)


def stored_tensors(weights: Mapping[str, Weight]) -> dict[str, Tensor]:
    """Weights of a bundle as tensors, mapped where they are; not to be written to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return {name: torch.from_numpy(weight.load()) for name, weight in weights.items()}
