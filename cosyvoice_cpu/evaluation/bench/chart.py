"""A bench as one SVG picture: a bar per row, its stages side by side, in seconds of computing."""

from __future__ import annotations

from html import escape

from cosyvoice_cpu.evaluation.bench.run import Bench

_STAGES = (("speech_lm", "speech LM", "#4878a8"), ("flow", "flow", "#d08a3e"))
_LAST = ("vocoder", "vocoder", "#5f9e6e")
_WIDTH, _LEFT, _RIGHT = 900, 190, 110  # pixels; names left of the bars, figures right
_BAR, _GAP, _TOP = 26, 14, 64
_STYLE = "font-family: sans-serif; font-size: 13px"


def svg(bench: Bench, title: str) -> str:
    """The chart of all rows that were measured; bars are medians, RTF stands at their ends."""
    rows = [row for row in bench.rows if row.status == "ok"]
    stages = (*_STAGES, _LAST)
    longest = max(
        (sum(row.metrics[f"{name}_s"].median for name, _, _ in stages) for row in rows), default=1.0
    )
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    height = _TOP + len(rows) * (_BAR + _GAP) + 10
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" style="{_STYLE}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="10" y="22" font-size="15">{escape(title)}</text>',
    ]
    x = float(_LEFT)
    for _, label, colour in stages:
        parts.append(f'<rect x="{x:.0f}" y="36" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 17:.0f}" y="47">{label}</text>')
        x += 110
    for index, row in enumerate(rows):
        y = _TOP + index * (_BAR + _GAP)
        middle = y + _BAR * 0.68
        name = escape(row.spec.name)
        parts.append(f'<text x="{_LEFT - 10}" y="{middle:.0f}" text-anchor="end">{name}</text>')
        x = float(_LEFT)
        for stage, label, colour in stages:
            seconds = row.metrics[f"{stage}_s"].median
            parts.append(
                f'<rect x="{x:.1f}" y="{y}" width="{seconds * scale:.1f}" height="{_BAR}" '
                f'fill="{colour}"><title>{name}, {label}: {seconds:.2f} s</title></rect>'
            )
            x += seconds * scale
        rtf = row.metrics["rtf"].median
        parts.append(f'<text x="{x + 8:.0f}" y="{middle:.0f}">RTF {rtf:.2f}</text>')
    return "\n".join([*parts, "</svg>\n"])
