"""What a bundle's graphs consist of: operators by kind, and bytes.

    python -m tools.count_operators [BUNDLE] > tests/data/operators.json

Times differ between machines, these numbers don't: a test compares them, so that a change of a
network that makes its graph longer or larger is seen and meant.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import onnx

from cosyvoice_cpu.bundle.reader import Bundle, open_bundle
from cosyvoice_cpu.demo import DEMO_BUNDLE
from cosyvoice_cpu.evaluation.bench.kernel_kinds import KINDS, kind_of
from tools.failures import reports_failures

_SPEAKING = ("speech_lm", "flow_encoder", "flow_estimator", "vocoder")


def count_operators(bundle: Bundle) -> dict[str, Any]:
    """For each graph that speaks: nodes by operator, products first, and the file's bytes; for each
    component the bytes of its weights. Of a ladder the largest size stands for all.
    """
    counts: dict[str, Any] = {}
    for component, entry in bundle.manifest.components.items():
        if component not in _SPEAKING:
            continue
        largest = {Path(file.path).stem.partition("-")[0]: file for file in entry.files}
        for stem, file in largest.items():
            name = f"{component}/{stem}"
            if file.path.endswith(".onnx"):
                operators = _operators(bundle.path / file.path)
                counts[name] = {"bytes": file.size, "operators": operators}
            else:
                counts[name] = {"bytes": file.size}
    return counts


def _operators(path: Path) -> dict[str, int]:
    graph = onnx.load(path, load_external_data=False).graph
    counted = Counter(node.op_type for node in graph.node)
    return dict(sorted(counted.items(), key=lambda item: (KINDS.index(kind_of(item[0])), item[0])))


@reports_failures
def main() -> int:
    """Print the counts as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path, nargs="?", default=DEMO_BUNDLE, help="or the demo")
    json.dump(count_operators(open_bundle(parser.parse_args().bundle)), sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
