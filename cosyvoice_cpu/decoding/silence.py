"""Long runs of silent speech tokens are shortened before they reach the flow.

Source: CosyVoice cosyvoice/cli/model.py, CosyVoice3Model.llm_job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable


class SilenceShortener:
    """Keeps the first `run_limit` of each run of `silent` ids, whatever their mixture.

    The dropped ids stay in the speech LM's context: only the flow does not see them. An empty
    `silent` keeps everything (CosyVoice-300M and CosyVoice2).
    """

    def __init__(self, silent: Collection[int], run_limit: int) -> None:
        self._silent, self._run_limit = frozenset(silent), run_limit
        self._run = 0

    def kept(self, tokens: Iterable[int]) -> list[int]:
        """What is kept of further `tokens`."""
        kept: list[int] = []
        for token in tokens:
            self._run = self._run + 1 if token in self._silent else 0
            if self._run <= self._run_limit:
                kept.append(token)
        return kept


def shorten_silence(tokens: Iterable[int], silent: Collection[int], run_limit: int) -> list[int]:
    """The same for all tokens of an utterance at once."""
    return SilenceShortener(silent, run_limit).kept(tokens)
