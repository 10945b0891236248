"""A float bundle with one component replaced, to be tried before it is anywhere near finished."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from cosyvoice_cpu.bundle.manifest import ComponentName
from cosyvoice_cpu.bundle.reader import Bundle


@dataclass(frozen=True)
class TrialBundle(Bundle):
    """All but `replaced` is the float bundle's; the files of `replaced` lie in `folder`."""

    replaced: ComponentName
    folder: Path

    def file(self, component: ComponentName, name: str) -> Path:
        """As for any bundle. Quantized components keep the names of their files."""
        listed = super().file(component, name)
        return self.folder / name if component == self.replaced else listed


def trial_bundle(
    source: Bundle, replaced: ComponentName, precision: str, folder: Path
) -> TrialBundle:
    """`source` with `replaced` in `precision`, which tells the engines how to open its graphs."""
    component = msgspec.structs.replace(source.component(replaced), precision=precision)
    manifest = msgspec.structs.replace(
        source.manifest, components=source.manifest.components | {replaced: component}
    )
    return TrialBundle(source.path, manifest, replaced, folder)
