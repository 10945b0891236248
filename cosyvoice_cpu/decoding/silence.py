"""Long runs of silent speech tokens are shortened before they reach the flow.

Source: CosyVoice cosyvoice/cli/model.py, CosyVoice3Model.llm_job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


def shorten_silence(tokens: Iterable[int], silent: Collection[int], run_limit: int) -> list[int]:
    """Keep the first `run_limit` of each run of `silent` ids, whatever their mixture.

    The dropped ids stay in the speech LM's context: only the flow does not see them. An empty
    `silent` keeps everything (CosyVoice-300M and CosyVoice2).
    """
    kept: list[int] = []
    run = 0
    for token in tokens:
        run = run + 1 if token in silent else 0
        if run <= run_limit:
            kept.append(token)
    return kept
