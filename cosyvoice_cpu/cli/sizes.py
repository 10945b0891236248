"""How bytes, and the parts of a bundle, are written for people."""

from __future__ import annotations

from cosyvoice_cpu.bundle.manifest import COMPONENT_NAMES, Component, Manifest


def megabytes(count: int) -> str:
    """Decimal megabytes, as disks are sold."""
    return f"{count / 1e6:.1f} MB"


def component_bytes(component: Component) -> int:
    """All files of a component."""
    return sum(entry.size for entry in component.files)


def component_table(manifest: Manifest) -> list[str]:
    """A line per component: name, size, precision, lengths."""
    lines = []
    for name in COMPONENT_NAMES:
        if name not in manifest.components:
            continue
        component = manifest.components[name]
        size = megabytes(component_bytes(component))
        lines.append(
            f"  {name:<18}{size:>11}  {component.precision:<18}{_lengths(component)}".rstrip()
        )
    return lines


def _lengths(component: Component) -> str:
    shapes = component.shapes
    if shapes.kind == "static":
        unit = shapes.unit.replace("_", " ")
        return f"{len(shapes.sizes)} sizes, {shapes.sizes[0]} to {shapes.sizes[-1]} {unit}"
    return "any length" if shapes.kind == "dynamic" else ""
