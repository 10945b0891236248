"""`--recipe auto`: which quantized components stay.

Today it starts from the default recipe and takes back what fails; a search among several candidates
per component would end in the same judgement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cosyvoice_cpu.bundle.manifest import QualityResult
from cosyvoice_cpu.quantization.report import ComponentReport

LEAST_SPEEDUP = 1.05  # less is noise, and float32 sounds best


def judged(report: ComponentReport, results: Sequence[QualityResult]) -> ComponentReport:
    """With the reason why the component goes back to float32, if there is one."""
    failed = [r for r in results if r.component == report.name and not r.passed]
    reason = None
    if failed:
        worst = failed[0]
        reason = f"{worst.measure} is {worst.value:g}, the limit is {worst.limit:g}"
    elif report.speedup is not None and report.speedup < LEAST_SPEEDUP:
        reason = f"not faster than float32 on this machine ({report.speedup:.2f} times)"
    return replace(report, put_back=reason, precision="float32" if reason else report.precision)
