"""A candidate: one component of a bundle as a recipe would quantize it.

    plan_component ─> (fit) ─> write_component ─> CandidateBundle, which is measured

A plan is made once, from headers and graphs. What calibration finds (`with_smoothing`,
`with_calibration`) and layers that are restored to float32 (`restored`) give another plan of the
same candidate; integers are computed when they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import msgspec

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle
from cosyvoice_cpu.bundle.safetensors_header import read_header
from cosyvoice_cpu.bundle.writer import BundleWriter, ComponentDraft
from cosyvoice_cpu.errors import BundleError, UsageError
from cosyvoice_cpu.export.weights import Weight, read_weights, write_weights
from cosyvoice_cpu.quantization.calibration.scale_folding import Smoothing
from cosyvoice_cpu.quantization.kernels.graph_rewrite import WEIGHT, layers_of, rewrite_graph
from cosyvoice_cpu.quantization.kernels.parameters import (
    CALIBRATION_FILE,
    Calibration,
    calibration_text,
)
from cosyvoice_cpu.quantization.kernels.variants import KERNELS, KernelVariant, pack_table
from cosyvoice_cpu.quantization.recipes.recipe import ComponentRecipe

WEIGHTS = "weights.safetensors"
_FLOAT = "float32"  # the precision that quantization starts from
_PROGRAM = 200_000_000  # bytes: Python, onnx, onnxruntime
_ACTIVATIONS = 150_000_000  # of the sizes that calibration uses, in the arena of all sessions
# Copies of one float32 weight at the same time while its integers are searched: the groups, what is
# tried, what is best, and what NumPy needs in between.
_COPIES = 8


@dataclass(frozen=True)
class ComponentPlan:
    """What will be done to a component."""

    name: ComponentName
    recipe_name: str
    recipe: ComponentRecipe
    layers: Mapping[str, KernelVariant]  # those that are quantized, and how
    all_layers: Sequence[str]
    graphs: Sequence[str]  # file names
    source_weights: Mapping[str, Weight]  # of the float32 bundle
    bytes_before: int  # of the component's files
    smoothing: Smoothing | None = None  # if the recipe asks for it and it has been found
    calibration: Calibration | None = None  # if the recipe needs one and it has been made

    def with_smoothing(self, smoothing: Smoothing) -> ComponentPlan:
        """The plan with the scales of a recipe that smooths its input channels."""
        return replace(self, smoothing=smoothing)

    def with_calibration(self, calibration: Calibration) -> ComponentPlan:
        """The plan with the ranges of activations that its kernels need."""
        return replace(self, calibration=calibration)

    def restored(self, layers: Collection[str]) -> ComponentPlan:
        """The plan with `layers` in float32 whatever the recipe says."""
        left = {layer: variant for layer, variant in self.layers.items() if layer not in layers}
        return replace(self, layers=left)

    @property
    def float32_layers(self) -> list[str]:
        """Layers that are not quantized."""
        return [layer for layer in self.all_layers if layer not in self.layers]

    @property
    def calibrated_layers(self) -> list[str]:
        """Layers whose kernels need fixed ranges of activations."""
        return [name for name, variant in self.layers.items() if KERNELS[variant.kernel].calibrated]

    @property
    def precision(self) -> str:
        """As the manifest will call it, such as "int4-weights+int8-weights" for a mixture."""
        precisions = {KERNELS[variant.kernel].precision for variant in self.layers.values()}
        return "+".join(sorted(precisions))

    @cached_property
    def floats(self) -> Mapping[str, Weight]:
        """All weights in float32, smoothed if they are to be."""
        return (
            self.smoothing.applied(self.source_weights) if self.smoothing else self.source_weights
        )

    @cached_property
    def weights(self) -> dict[str, Weight]:
        """All weights as they will be written."""
        weights: dict[str, Weight] = {}
        for name, weight in self.floats.items():
            layer = name.removesuffix(WEIGHT)
            if name.endswith(WEIGHT) and layer in self.layers:
                weights |= self.packed(layer)
            elif name in self.recipe.embedding_tables:
                weights |= pack_table(name, weight, self.recipe.embedding_tables[name])
            else:
                weights[name] = weight
        return weights

    def packed(self, layer: str) -> dict[str, Weight]:
        """The integers of one quantized layer, and what its kernel wants beside them."""
        name, variant = layer + WEIGHT, self.layers[layer]
        found = self.calibration.layers.get(layer) if self.calibration else None
        return KERNELS[variant.kernel].pack(name, self.floats[name], variant, found)

    @property
    def bytes_after(self) -> int:
        """Predicted: the graphs keep their size within a few per cent."""
        return self.bytes_before - _bytes(self.floats) + _bytes(self.weights)


def plan_component(
    bundle: Bundle, name: ComponentName, recipe: ComponentRecipe, recipe_name: str = ""
) -> ComponentPlan:
    """What `recipe` would do to a component; reads headers and graphs only.

    Raises: BundleError unless the component is float32, UsageError for a recipe that does not fit.
    """
    component = bundle.component(name)
    if component.precision != _FLOAT:
        raise BundleError(
            f"{name} of {bundle.path} is {component.precision}; quantization starts from float32",
            "give the bundle that `cosyvoice-cpu export` made with --storage float32",
        )
    files = [entry.path.split("/")[1] for entry in component.files]
    graphs = [file for file in files if file.endswith(".onnx")]
    convolutions = any(KERNELS[variant.kernel].convolutions for variant in recipe.variants)
    found: dict[str, tuple[int, ...]] = {}
    for file in _one_per_ladder(graphs):  # sizes and masks differ, layers do not
        found |= layers_of(bundle.file(name, file), convolutions=convolutions)
    variants = {layer: recipe.variant_of(layer) for layer in found}
    plan = ComponentPlan(
        name=name,
        recipe_name=recipe_name,
        recipe=recipe,
        layers={layer: variant for layer, variant in variants.items() if variant},
        all_layers=list(found),
        graphs=graphs,
        source_weights=read_weights(bundle.file(name, WEIGHTS)),
        bytes_before=sum(entry.size for entry in component.files),
    )
    if not plan.layers:
        raise UsageError(
            f"the recipe selects no layer of {name}", f"its layers are {', '.join(found)}"
        )
    if missing := [table for table in recipe.embedding_tables if table not in plan.source_weights]:
        raise UsageError(
            f"{name} has no table {missing[0]}", "remove it from the recipe's embedding_tables"
        )
    return plan


def write_component(plan: ComponentPlan, bundle: Bundle, writer: BundleWriter) -> ComponentDraft:
    """Write the component's weights, one tensor at a time, and its graphs; the manifest's entry."""
    name = plan.name
    metadata = read_header(bundle.file(name, WEIGHTS)).metadata
    stored = write_weights(writer.path_for(name, WEIGHTS), plan.weights, metadata=metadata)
    if plan.calibration:
        report = calibration_text(name, plan.calibration, plan.calibrated_layers)
        writer.path_for(name, CALIBRATION_FILE).write_bytes(report)
    for file in plan.graphs:
        rewrite_graph(bundle.file(name, file), writer.path_for(name, file), plan.layers, stored)
    return component_draft(plan, bundle)


def component_draft(plan: ComponentPlan, bundle: Bundle) -> ComponentDraft:
    """The manifest's entry of a component that was written by `plan`."""
    shapes = bundle.component(plan.name).shapes
    return ComponentDraft(plan.precision, "onnxruntime", shapes, plan.recipe_name)


def component_folder(writer: BundleWriter, name: ComponentName) -> Path:
    """Where the writer keeps the files of a component."""
    return writer.path_for(name, WEIGHTS).parent


@dataclass(frozen=True)
class CandidateBundle(Bundle):
    """The float32 bundle with one component replaced, whose files lie in another folder."""

    replaced: ComponentName
    folder: Path

    @classmethod
    def of(cls, source: Bundle, plan: ComponentPlan, folder: Path) -> CandidateBundle:
        """`source` with the component of `plan`; its precision tells how to open the graphs."""
        component = msgspec.structs.replace(source.component(plan.name), precision=plan.precision)
        manifest = msgspec.structs.replace(
            source.manifest, components=source.manifest.components | {plan.name: component}
        )
        return cls(source.path, manifest, plan.name, folder)

    def file(self, component: ComponentName, name: str) -> Path:
        """As for any bundle. Quantized components keep the names of their files."""
        listed = super().file(component, name)
        return self.folder / name if component == self.replaced else listed


def predicted_memory(plans: Sequence[ComponentPlan]) -> int:
    """Bytes that must fit; float weights and results are mapped files and can be dropped.

    The engine repacks the integers of the component that is measured.
    """
    largest = [plan.floats[layer + WEIGHT].num_bytes for plan in plans for layer in plan.layers]
    integers = [sum(p.weights[layer + WEIGHT].num_bytes for layer in p.layers) for p in plans]
    packing = _COPIES * max(largest, default=0)
    return _PROGRAM + max(packing, max(integers, default=0) + _ACTIVATIONS)


def _one_per_ladder(graphs: Sequence[str]) -> list[str]:
    """One file of each ladder: `full-00100.onnx` stands for `full-00150.onnx`."""
    return list({file.removesuffix(".onnx").rsplit("-", 1)[0]: file for file in graphs}.values())


def _bytes(weights: Mapping[str, Weight]) -> int:
    return sum(weight.num_bytes for weight in weights.values())
