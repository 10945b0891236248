"""What `/metrics` shows, in Prometheus' text format."""

from __future__ import annotations

from functools import partial

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from cosyvoice_cpu.serving.cost import CostModel
from cosyvoice_cpu.serving.engine_room import EngineRoom
from cosyvoice_cpu.serving.job import Job, State
from cosyvoice_cpu.serving.worker_pool import WorkerPool

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0)
_RTF = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """Counts of one server; a second one in the process has its own."""

    def __init__(self, room: EngineRoom, cost: CostModel, pool: WorkerPool | None = None) -> None:
        self._registry = CollectorRegistry()
        process = psutil.Process()
        self._requests = Counter(
            "cosyvoice_requests",
            "Answered requests, by path and status.",
            ("path", "status"),
            registry=self._registry,
        )
        self._jobs = Counter(
            "cosyvoice_speeches",
            "Texts that were taken, by how they ended.",
            ("outcome",),
            registry=self._registry,
        )
        self._first_audio = Histogram(
            "cosyvoice_first_audio_seconds",
            "From taking a text to its first bytes of audio.",
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._rtf = Histogram(
            "cosyvoice_rtf",
            "Seconds of computing per second of audio of a text.",
            buckets=_RTF,
            registry=self._registry,
        )
        self._audio = Counter(
            "cosyvoice_audio_seconds", "Audio that was made.", registry=self._registry
        )
        in_state = Gauge(
            "cosyvoice_speeches_now",
            "Texts that wait for a worker, are on one, or wait for their client to read.",
            ("state",),
            registry=self._registry,
        )
        for state in (State.WAITING, State.RUNNING, State.PARKED):
            in_state.labels(state.name.lower()).set_function(partial(_count, room, state))
        for name, help_text, value in (
            ("cosyvoice_workers", "Texts that are spoken at a time.", lambda: room.workers),
            (
                "cosyvoice_worker_processes",
                "Processes that speak; 0 if the server does it itself.",
                lambda: len(pool) if pool is not None else 0,
            ),
            (
                "cosyvoice_worker_restarts",
                "Processes that ended unasked and were replaced.",
                lambda: pool.restarts if pool is not None else 0,
            ),
            ("cosyvoice_backlog_seconds", "Work that is accepted and left.", room.backlog),
            ("cosyvoice_rtf_expected", "What admission reckons with.", lambda: cost.rtf),
            (
                "cosyvoice_resident_memory_bytes",
                "Resident memory of the server and its processes; shared pages count in each.",
                lambda: _resident_bytes(process.pid) + sum(map(_resident_bytes, _pids(pool))),
            ),
        ):
            Gauge(name, help_text, registry=self._registry).set_function(value)

    def answered(self, path: str, status: int) -> None:
        """A request on one of the server's paths got its answer's status."""
        self._requests.labels(path, str(status)).inc()

    def spoken(self, job: Job, outcome: str) -> None:
        """A job ended: "done", "cancelled" or "failed"."""
        self._jobs.labels(outcome).inc()
        self._audio.inc(job.seconds_audio)
        if job.times.first_block is not None:
            self._first_audio.observe(job.times.first_block - job.times.submitted)
        if outcome == "done" and job.seconds_audio > 0:
            self._rtf.observe(job.times.computing / job.seconds_audio)

    def text(self) -> bytes:
        """The page."""
        return generate_latest(self._registry)


def _count(room: EngineRoom, state: State) -> float:
    return room.counts()[state]


def _pids(pool: WorkerPool | None) -> list[int]:
    return pool.pids if pool is not None else []


def _resident_bytes(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:  # it ended
        return 0
