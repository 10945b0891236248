"""Which component goes back to float32 when listeners refuse what a search has chosen."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from cosyvoice_cpu.bundle.manifest import ComponentName, QualityResult

# On the same tokens mel and loudness are the work of flow and vocoder alone. Words and voice are
# everybody's; the speech LM's draws change most of them.
_OF_THE_SAME_TOKENS = frozenset({"mel_correlation", "loudness_change_db"})
_BEHIND_TOKENS: tuple[ComponentName, ...] = ("flow_estimator", "flow_encoder", "vocoder")
_ALL: tuple[ComponentName, ...] = ("speech_lm", *_BEHIND_TOKENS)


def suspect(
    heard: Sequence[QualityResult], searched: Collection[ComponentName]
) -> tuple[ComponentName, str] | None:
    """The component of `searched` to put back first, and why; None if that can't help.

    `searched` holds the quantized components whose recipe leaves a choice.
    """
    for result in heard:
        if result.passed:
            continue
        order = _BEHIND_TOKENS if result.measure in _OF_THE_SAME_TOKENS else _ALL
        for name in order:
            if name in searched:
                value, limit = f"{result.value:g}", f"{result.limit:g}"
                return name, f"heard: {result.measure} is {value}, the limit is {limit}"
    return None
