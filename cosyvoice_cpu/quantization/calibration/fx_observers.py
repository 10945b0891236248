"""Observers in a network and what they found, through torch.ao.quantization's FX mode.

The only module that imports it: its API goes, `torchao` follows. What leaves this module are the
plain values of `quantization.parameters`; whoever replaces it fills the same.

Inputs of the chosen layers are quantized, outputs are not. FX observes both, and its own backends
quantize both; between two of our products there always is float arithmetic (a norm, a softmax, a
GELU), so a rounded output would cost accuracy and save nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.ao.nn.quantized import reference
from torch.ao.quantization import (
    HistogramObserver,
    MinMaxObserver,
    MovingAverageMinMaxObserver,
    PerChannelMinMaxObserver,
    QConfig,
    QConfigMapping,
)
from torch.ao.quantization.backend_config import (
    BackendConfig,
    BackendPatternConfig,
    DTypeConfig,
    ObservationType,
)
from torch.ao.quantization.fx.custom_config import PrepareCustomConfig
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

from cosyvoice_cpu.quantization.kernels.parameters import LayerParameters, ObserverName
from cosyvoice_cpu.quantization.recipes.recipe import Activations

METHOD = f"torch.ao.quantization, FX mode, torch {torch.__version__}"


class UncalledLayerError(LookupError):
    """The network does not call this layer, its only argument, so nothing enters it."""


class PercentileObserver(HistogramObserver):
    """A range that leaves out the outermost values, the same share on either side."""

    def __init__(self, percentile: float = 99.99, **settings: Any) -> None:
        super().__init__(**settings)
        self.percentile = percentile

    def _non_linear_param_search(self) -> tuple[Tensor, Tensor]:
        """Called by `calculate_qparams` for the range, in place of the search by squared error."""
        share = self.histogram.cumsum(0) / self.histogram.sum()
        outside = (1 - self.percentile / 100) / 2
        first = int((share <= outside).sum())
        last = int((share < 1 - outside).sum())
        step = (self.max_val - self.min_val) / self.bins
        return self.min_val + step * first, self.min_val + step * (last + 1)


_OBSERVERS: dict[ObserverName, type[nn.Module]] = {
    "min-max": MinMaxObserver,
    "moving-min-max": MovingAverageMinMaxObserver,
    "histogram": HistogramObserver,
    "percentile": PercentileObserver,
}


def observe(
    network: nn.Module,
    leaves: Collection[type[nn.Module]],
    layers: Collection[str],
    settings: Activations,
    run: Callable[[nn.Module], None],
) -> tuple[dict[str, LayerParameters], nn.Module]:
    """Parameters of `layers`, and the network that FX converts with them.

    `run` runs the network it is given on all that the observers shall see. Modules of the classes
    `leaves` are called, not traced. The converted network computes in float32 on rounded values;
    weights are shared with `network` where they stay float32.
    Raises: UncalledLayerError.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecation of the whole API, and of its inner workings
        prepared = prepare_fx(
            network,
            _qconfigs(layers, settings),
            (),
            prepare_custom_config=PrepareCustomConfig().set_non_traceable_module_classes(
                list(leaves)
            ),
            backend_config=_backend(),
        )
        inputs = _keep_input_observers(prepared, layers)
        with torch.no_grad():
            run(prepared)
        seen = {
            layer: (float(observer.min_val), float(observer.max_val))  # type: ignore[arg-type]
            for layer, observer in inputs.items()
        }
        converted = convert_fx(prepared, backend_config=_backend())
    return {layer: _parameters(converted, layer, seen[layer]) for layer in layers}, converted


def _qconfigs(layers: Collection[str], settings: Activations) -> QConfigMapping:
    """Chosen layers: uint8 activations by the recipe's observer, int8 weights per channel."""
    extra = {"percentile": settings.percentile} if settings.observer == "percentile" else {}
    activation = _OBSERVERS[settings.observer].with_args(  # type: ignore[attr-defined]
        dtype=torch.quint8, quant_min=0, quant_max=2**settings.bits - 1, **extra
    )
    weight = PerChannelMinMaxObserver.with_args(
        dtype=torch.qint8, qscheme=torch.per_channel_symmetric, quant_min=-127, quant_max=127
    )
    mapping = QConfigMapping().set_global(None)
    for layer in layers:
        mapping.set_module_name(layer, QConfig(activation, weight))  # type: ignore[no-untyped-call]
    return mapping


def _backend() -> BackendConfig:
    """Linear layers and convolutions, as x86's FBGEMM has them, and no fused patterns."""
    types = DTypeConfig(
        input_dtype=torch.quint8,
        output_dtype=torch.quint8,
        weight_dtype=torch.qint8,
        bias_dtype=torch.float,
    )
    patterns = [
        BackendPatternConfig(module)
        .set_observation_type(ObservationType.OUTPUT_USE_DIFFERENT_OBSERVER_AS_INPUT)
        .set_dtype_configs([types])
        .set_root_module(module)
        .set_reference_quantized_module(quantized)
        for module, quantized in (
            (nn.Linear, reference.Linear),
            (nn.Conv1d, reference.Conv1d),
        )
    ]
    return BackendConfig("static-int8").set_backend_pattern_configs(patterns)


def _keep_input_observers(
    prepared: fx.GraphModule, layers: Collection[str]
) -> dict[str, nn.Module]:
    """Take out what observes outputs only; the observers of the inputs by layer."""
    calls = {node.target: node for node in prepared.graph.nodes if node.op == "call_module"}
    if uncalled := [layer for layer in layers if layer not in calls]:
        raise UncalledLayerError(uncalled[0])
    inputs = {layer: calls[layer].args[0] for layer in layers}
    for layer in layers:
        for user in list(calls[layer].users):
            if user.op == "call_module" and user not in inputs.values() and _observes(user):
                user.replace_all_uses_with(calls[layer])
                prepared.graph.erase_node(user)
    prepared.recompile()
    return {layer: prepared.get_submodule(str(node.target)) for layer, node in inputs.items()}


def _observes(node: fx.Node) -> bool:
    return str(node.target).startswith("activation_post_process")


def _parameters(
    converted: fx.GraphModule, layer: str, seen: tuple[float, float]
) -> LayerParameters:
    """From the graph `quantize_per_tensor(x, scale, zero point) -> dequantize -> layer`."""
    call = next(node for node in converted.graph.nodes if node.target == layer)
    quantize = call.args[0].args[0]
    scale, zero_point = (getattr(converted, str(node.target)) for node in quantize.args[1:3])
    weight_scale = cast("Tensor", converted.get_submodule(layer).weight_scale)
    return LayerParameters(
        minimum=seen[0],
        maximum=seen[1],
        scale=float(scale),
        zero_point=int(zero_point),
        weight_scale=weight_scale.detach().numpy().astype(np.float32),
    )
