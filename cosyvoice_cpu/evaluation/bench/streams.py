"""`bench --stream`: how soon a stream is heard, whether it keeps up, what it costs beside a whole.

One request in turn whole (unless left out) and streamed, in one process per bundle. Its text has
sentences of ten seconds, so that longer speech comes in pieces, as of a real text. The speech LM
computes every token, but tokens of fixed values are handed on, as many as a piece's share of the
text, so that a random model does a trained one's work and nothing runs away.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

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
    "RTF of the first and the last 10 s",
    "silence s",
    "flow, s for a second",
    "the last / the second one",
    "peak RSS MB",
)
_SENTENCE_SECONDS = 10.0
_PART_SECONDS = 10.0  # of audio, whose costs are told apart


@dataclass(frozen=True)
class StreamRow:
    """One bundle's figures; lists have one value for each repetition."""

    name: str
    seconds_audio: float
    whole_s: list[float]  # empty where whole speech is left out
    stream_s: list[float]
    first_audio_s: list[float]
    rtf_course: list[list[float]]  # of each ten seconds, the first with the wait for the sound
    silence_s: list[float]  # that a listener hears who plays from the first sound on
    chunk_s: list[float]  # of the flow, for a chunk of a second
    last_over_second: list[float]  # chunk of one flow, as long as the bundle takes it
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
            process.ask("warm_stream", workers=workers, whole=whole)
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
        "rtf_course": row.rtf_course,
        "silence_s": row.silence_s,
        "chunk_s": row.chunk_s,
        "last_over_second": row.last_over_second,
        "peak_rss_mb": row.memory.peak_mb,
        "anonymous_mb": row.memory.anonymous_mb,
    }


def warm_up(stages: Stages, work: Work, workers: int, *, whole: bool = True) -> None:
    """The request whole (unless left out), and the first seconds of it streamed: graphs are open
    and the prompt is computed then.
    """
    pipeline = _pipeline(stages, work)
    if whole:
        _speak_whole(pipeline, work)
    stream, heard = pipeline.stream(_request(work), workers), 0.0
    while heard < _SENTENCE_SECONDS and (block := next(stream, None)):
        heard += block.seconds
    stream.close()


def measure_stream(
    stages: Stages, work: Work, workers: int, *, whole: bool = True
) -> dict[str, float | list[float]]:
    """One request whole (unless left out), then streamed; the fields of a `StreamRow`."""
    pipeline = _pipeline(stages, work)
    figures: dict[str, float | list[float]] = {}
    if whole:
        figures["whole_s"] = _speak_whole(pipeline, work)
    request = _request(work)
    arrivals, heard = [0.0], [0.0]  # seconds since the request, and of audio until then
    silence = played_until = 0.0
    for block in pipeline.stream(request, workers):
        now = time.perf_counter() - request.started
        silence += max(0.0, now - (played_until or now))
        played_until = max(played_until, now) + block.seconds
        arrivals.append(now)
        heard.append(heard[-1] + block.seconds)
    seconds = time.perf_counter() - request.started
    chunks = _chunk_seconds(stages, work)
    return figures | {
        "stream_s": seconds,
        "first_audio_s": arrivals[1],
        "rtf_course": _rtf_course(arrivals, heard),
        "silence_s": silence,
        "chunk_s": statistics.median(chunks),
        "last_over_second": chunks[-1] / chunks[min(1, len(chunks) - 1)],
    }


def _pipeline(stages: Stages, work: Work) -> Pipeline:
    """It reads a word as one text id, whichever."""
    ids = work.utterance.text_ids
    return Pipeline(_FixedSpeech(stages, work), lambda text: ids[: len(text.split())])


def _text(work: Work) -> str:
    """A word for each of the work's text ids, in sentences."""
    count = len(work.utterance.text_ids)
    longest = max(1, round(count * _SENTENCE_SECONDS / work.workload.seconds))
    lengths = [min(longest, count - first) for first in range(0, count, longest)]
    return " ".join(" ".join(["La"] * length) + "." for length in lengths)


def _rtf_course(arrivals: Sequence[float], heard: Sequence[float]) -> list[float]:
    """Seconds between arrivals for a second of audio, in parts of about ten seconds of audio."""
    parts = max(1, round(heard[-1] / _PART_SECONDS))
    edges = np.linspace(0.0, heard[-1], parts + 1)
    taken = np.diff(np.interp(edges, heard, arrivals)) / np.diff(edges)
    return [float(rtf) for rtf in taken]


def _speak_whole(pipeline: Pipeline, work: Work) -> float:
    started = time.perf_counter()
    for _ in pipeline.speak(_request(work)):
        pass
    return time.perf_counter() - started


def _chunk_seconds(stages: Stages, work: Work) -> list[float]:
    """Seconds of one flow for each whole chunk, alone on the machine's cores; of longer speech
    than the bundle takes in one piece, the beginning.
    """
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
    most = work.audio.tokens_within(stages.max_frames) - len(utterance.prompt_tokens)
    spoken = utterance.tokens[:most]
    seconds = []
    for first in range(0, len(spoken), tokens):
        started = time.perf_counter()
        mel = stream.push(spoken[first : first + tokens])
        if mel.shape[1] == chunk:
            seconds.append(time.perf_counter() - started)
    return seconds


class _FixedSpeech:
    """Stages whose speech LM computes as many tokens as a piece's share of the work's, and hands
    the first so many of those on.
    """

    def __init__(self, stages: Stages, work: Work) -> None:
        self._stages, self._tokens = stages, work.utterance.tokens
        self._tokens_per_id = len(self._tokens) / len(work.utterance.text_ids)

    def stream_speech_tokens(self, text_ids: Sequence[int], **arguments: Any) -> Iterator[int]:
        count = max(1, round(len(text_ids) * self._tokens_per_id))
        drawn = self._stages.stream_speech_tokens(
            text_ids, **{**arguments, "min_tokens": count, "max_tokens": count}
        )
        for token, _ in zip(self._tokens, drawn, strict=False):
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
        _text(work),
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
        ", ".join(f"{statistics.median(c[end] for c in row.rtf_course):.2f}" for end in (0, -1)),
        _median(row.silence_s),
        _median(row.chunk_s),
        _median(row.last_over_second),
        f"{row.memory.peak_mb:.0f} ({row.memory.anonymous_mb:.0f} anonymous)",
    ]


def _median(values: Sequence[float]) -> str:
    if not values:
        return "–"
    return f"{statistics.median(values):.2f} ({min(values):.2f})"
