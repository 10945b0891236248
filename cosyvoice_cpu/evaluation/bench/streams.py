"""`bench --stream`: how soon a stream is heard, whether it keeps up, what it costs beside a whole.

One request in turn whole (unless left out) and streamed, in one process per bundle. The speech LM
computes every token, but tokens of fixed values are handed on, so that a random model does a
trained one's work and nothing runs away.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cosyvoice_cpu.evaluation.bench.engines import EngineSpec
from cosyvoice_cpu.evaluation.bench.pool import BenchProcess
from cosyvoice_cpu.evaluation.bench.workload import Request as Work
from cosyvoice_cpu.evaluation.bench.workload import Workload
from cosyvoice_cpu.progress import Notify, no_notice
from cosyvoice_cpu.stage_api import Stages
from cosyvoice_cpu.synthesis.pipeline import Pipeline
from cosyvoice_cpu.synthesis.prompts import Prompt
from cosyvoice_cpu.synthesis.request import Request
from cosyvoice_cpu.synthesis.streaming import WINDOW_SECONDS
from cosyvoice_cpu.system.memory import ResidentMemory

_HEAD = (
    "row",
    "whole s",
    "stream s",
    "stream / whole",
    "first sound s: median, 95 %",
    "RTF",
    "silence s",
    "flow, s for a second",
    "the last / the second one",
    "peak RSS MB",
)


@dataclass(frozen=True)
class StreamRow:
    """One bundle's figures; lists have one value for each repetition."""

    name: str
    seconds_audio: float
    whole_s: list[float]  # empty where whole speech is left out
    stream_s: list[float]
    first_audio_s: list[float]
    silence_s: list[float]  # that a listener hears who plays from the first sound on
    chunk_s: list[float]  # of the flow, for a chunk of a second
    last_over_second: list[float]  # chunk
    memory: ResidentMemory


def run_stream_bench(
    specs: Sequence[EngineSpec],
    workload: Workload,
    *,
    threads: int,
    workers: int,
    repeat: int,
    whole: bool = True,
    notify: Notify = no_notice,
) -> list[StreamRow]:
    """Measure bundles one after the other, each `repeat` times whole and streamed in turn.

    Without `whole` streams alone: memory is then theirs.
    Raises: CosyVoiceError for a bundle that can't be loaded or does not speak.
    """
    rows = []
    for spec in specs:
        notify(f"{spec.name}: {repeat} requests, {'whole and ' if whole else ''}streamed")
        with BenchProcess(spec, workload, threads) as process:
            process.ask("load")
            process.ask("stream", workers=workers, whole=whole)  # warm, the prompt computed
            answers = [process.ask("stream", workers=workers, whole=whole) for _ in range(repeat)]
            memory = process.end()
        figures = {key: [answer[key] for answer in answers] for key in answers[0]}
        figures.setdefault("whole_s", [])
        rows.append(StreamRow(spec.name, workload.seconds, memory=memory, **figures))
    return rows


def markdown(rows: Sequence[StreamRow]) -> str:
    """A table with a line for each row; medians, and minima in parentheses."""
    lines = ["| " + " | ".join(_HEAD) + " |", "|---" + "|--:" * (len(_HEAD) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(_cells(row)) + " |" for row in rows)])


def as_json(row: StreamRow) -> dict[str, Any]:
    """The row as plain values."""
    return {
        "name": row.name,
        "seconds_audio": row.seconds_audio,
        "whole_s": row.whole_s,
        "stream_s": row.stream_s,
        "first_audio_s": row.first_audio_s,
        "silence_s": row.silence_s,
        "chunk_s": row.chunk_s,
        "last_over_second": row.last_over_second,
        "peak_rss_mb": row.memory.peak_mb,
        "anonymous_mb": row.memory.anonymous_mb,
    }


def measure_stream(
    stages: Stages, work: Work, workers: int, *, whole: bool = True
) -> dict[str, float]:
    """One request whole (unless left out), then streamed; the fields of a `StreamRow`."""
    pipeline = Pipeline(_FixedSpeech(stages, work), lambda text: work.utterance.text_ids)
    figures = {"whole_s": _speak_whole(pipeline, work)} if whole else {}
    request = _request(work)
    first = played_until = 0.0
    silence = 0.0
    for block in pipeline.stream(request, workers):
        now = time.perf_counter() - request.started
        first = first or now
        silence += max(0.0, now - (played_until or now))
        played_until = max(played_until, now) + block.seconds
    seconds = time.perf_counter() - request.started
    chunks = _chunk_seconds(stages, work)
    return figures | {
        "stream_s": seconds,
        "first_audio_s": first,
        "silence_s": silence,
        "chunk_s": statistics.median(chunks),
        "last_over_second": chunks[-1] / chunks[min(1, len(chunks) - 1)],
    }


def _speak_whole(pipeline: Pipeline, work: Work) -> float:
    started = time.perf_counter()
    for _ in pipeline.speak(_request(work)):
        pass
    return time.perf_counter() - started


def _chunk_seconds(stages: Stages, work: Work) -> list[float]:
    """Seconds of the flow for each whole chunk, alone on the machine's cores."""
    utterance = work.utterance
    stream = stages.flow_stream(
        prompt_tokens=utterance.prompt_tokens,
        prompt_mel=utterance.prompt_mel,
        embedding=utterance.embedding,
        preset=work.synthesis.preset(work.preset),
        window_seconds=WINDOW_SECONDS,
    )
    chunk = work.synthesis.chunk_frames
    tokens = work.audio.tokens_within(chunk)
    seconds = []
    for first in range(0, len(utterance.tokens), tokens):
        started = time.perf_counter()
        mel = stream.push(utterance.tokens[first : first + tokens])
        if mel.shape[1] == chunk:
            seconds.append(time.perf_counter() - started)
    return seconds


class _FixedSpeech:
    """Stages whose speech LM computes as many tokens as the work has, and hands the work's on."""

    def __init__(self, stages: Stages, work: Work) -> None:
        self._stages, self._tokens = stages, work.utterance.tokens

    def stream_speech_tokens(self, text_ids: Sequence[int], **arguments: Any) -> Iterator[int]:
        count = len(self._tokens)
        drawn = self._stages.stream_speech_tokens(
            text_ids, **{**arguments, "min_tokens": count, "max_tokens": count}
        )
        for token, _ in zip(self._tokens, drawn, strict=True):
            yield token

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stages, name)


def _request(work: Work) -> Request:
    utterance = work.utterance
    prompt = Prompt(
        mode="zero-shot",
        text="",
        transcript_ids=tuple(utterance.prompt_text_ids),
        speech_ids=tuple(utterance.prompt_tokens),
        tokens=tuple(utterance.prompt_tokens),
        mel=utterance.prompt_mel,
        embedding=utterance.embedding,
    )
    return Request(
        "Measured.",
        prompt,
        seed=0,
        preset=work.preset,
        retries=0,
        started=time.perf_counter(),
    )


def _cells(row: StreamRow) -> list[str]:
    ratios = [s / w for s, w in zip(row.stream_s, row.whole_s, strict=False)]
    late = sorted(row.first_audio_s)[max(0, -(-95 * len(row.first_audio_s) // 100) - 1)]
    return [
        row.name,
        _median(row.whole_s),
        _median(row.stream_s),
        _median(ratios),
        f"{statistics.median(row.first_audio_s):.2f}, {late:.2f}",
        _median([seconds / row.seconds_audio for seconds in row.stream_s]),
        _median(row.silence_s),
        _median(row.chunk_s),
        _median(row.last_over_second),
        f"{row.memory.peak_mb:.0f} ({row.memory.anonymous_mb:.0f} anonymous)",
    ]


def _median(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f})"
