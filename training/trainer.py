"""One training loop for every network of the recipe.

A run lives in a folder: `checkpoint.pt` (step, weights, averaged weights, optimizer) and
`curve.jsonl` (one line per report). All randomness of a step, data and noise alike, is drawn from
(seed, step), so a run that is stopped and started again goes through exactly the steps it would
have gone through. Schedules count steps, never seconds: a machine that is slow or paused changes
nothing.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Settings:
    """How one network is trained."""

    steps: int
    peak_rate: float
    warmup: int = 100
    floor: float = 0.05  # last rate, as a part of the peak
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    clip: float = 1.0  # gradient norm
    average: float = 0.999  # decay of the averaged weights
    bfloat16: bool = False
    report_every: int = 100
    save_every: int = 200
    evaluate_every: int = 1000
    seed: int = 0

    def rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to `floor` of the peak."""
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))
        warm = min(1.0, (step + 1) / self.warmup)
        return self.peak_rate * warm * (self.floor + (1 - self.floor) * fall)


class Task(Protocol):
    """What a network must say to be trained."""

    @property
    def network(self) -> nn.Module:
        """The network in training."""

    def parameter_groups(self) -> Iterable[dict[str, Any]]:
        """AdamW groups; a group's `scale` multiplies the rate (1 where absent)."""

    def losses(self, rng: np.random.Generator, step: int) -> dict[str, Tensor]:
        """Losses of one random batch; `total` is minimized, all are reported. torch's generator is
        seeded.
        """

    def evaluate(self, network: nn.Module) -> dict[str, float]:
        """Figures on held-out data; `network` holds the averaged weights."""


@runtime_checkable
class LearnsMore(Protocol):
    """A task that trains something beside its network, which has to be saved as well."""

    def state_dict(self) -> dict[str, Any]:
        """All of it, with its optimizer."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""


def train(task: Task, folder: Path, settings: Settings) -> nn.Module:
    """Train from the folder's checkpoint, or from the beginning, up to `settings.steps`; the
    averaged network.

    SIGTERM and SIGINT save and leave (SystemExit, status 130).
    """
    folder.mkdir(parents=True, exist_ok=True)
    optimizer = torch.optim.AdamW(
        [{"scale": 1.0, **group} for group in task.parameter_groups()],
        lr=settings.peak_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
    )
    average = {k: v.detach().clone() for k, v in task.network.state_dict().items()}
    step = _restore(folder, task, average, optimizer)
    stop = _StopRequest()
    sums: dict[str, float] = defaultdict(float)
    counted, cpu = 0, time.process_time()
    while step < settings.steps:
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step) * group["scale"]
        torch.manual_seed(settings.seed * 1_000_003 + step)
        rng = np.random.default_rng((settings.seed, step))
        with torch.autocast("cpu", torch.bfloat16, enabled=settings.bfloat16):
            losses = task.losses(rng, step)
        optimizer.zero_grad()
        losses["total"].backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(task.network.parameters(), settings.clip)
        if not torch.isfinite(norm):  # one bad batch must not end a run of hours
            logger.warning("step %d: gradient norm %s, step left out", step, float(norm))
        else:
            optimizer.step()
        step += 1
        _follow(average, task.network, min(settings.average, (1 + step) / (10 + step)))
        for name, value in {**losses, "gradient_norm": norm}.items():
            sums[name] += float(value.detach())
        counted += 1
        if step % settings.report_every == 0:
            line = {name: round(total / counted, 4) for name, total in sums.items()}
            _report(folder, {"step": step, **line, "cpu_s_per_step": _per(cpu, counted)})
            sums, counted, cpu = defaultdict(float), 0, time.process_time()
        if step % settings.evaluate_every == 0 or step == settings.steps:
            _report(folder, {"step": step, "heldout": _evaluate(task, average)})
            cpu = time.process_time()
        if step % settings.save_every == 0 or step == settings.steps or stop.requested:
            _save(folder, step, task, average, optimizer)
        if stop.requested:
            raise SystemExit(130)
    task.network.load_state_dict(average)
    return task.network


def load_averaged(folder: Path, network: nn.Module) -> int:
    """Load a run's averaged weights into `network` and put it in evaluation mode; the run's step.

    Raises FileNotFoundError when the run has no checkpoint yet.
    """
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    network.load_state_dict(state["average"])
    network.eval()
    return int(state["step"])


class _StopRequest:
    """Turns SIGTERM and SIGINT into a wish that the loop grants between two steps."""

    def __init__(self) -> None:
        self.requested = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True


@torch.no_grad()
def _follow(average: dict[str, Tensor], network: nn.Module, decay: float) -> None:
    for name, value in network.state_dict().items():
        if value.dtype.is_floating_point:
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)


def _evaluate(task: Task, average: dict[str, Tensor]) -> dict[str, float]:
    own = {k: v.clone() for k, v in task.network.state_dict().items()}
    task.network.load_state_dict(average)
    task.network.eval()
    with torch.no_grad():
        figures = task.evaluate(task.network)
    task.network.train()
    task.network.load_state_dict(own)
    return {name: round(value, 4) for name, value in figures.items()}


def _restore(
    folder: Path, task: Task, average: dict[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    path = folder / "checkpoint.pt"
    if not path.exists():
        return 0
    state = torch.load(path, weights_only=True)
    task.network.load_state_dict(state["weights"])
    average.update(state["average"])
    optimizer.load_state_dict(state["optimizer"])
    if isinstance(task, LearnsMore):
        task.load_state_dict(state["task"])
    logger.info("%s: going on at step %d", folder.name, state["step"])
    return int(state["step"])


def _save(
    folder: Path,
    step: int,
    task: Task,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    part = folder / "checkpoint.pt.part"
    state: dict[str, Any] = {
        "step": step,
        "weights": task.network.state_dict(),
        "average": average,
        "optimizer": optimizer.state_dict(),
    }
    if isinstance(task, LearnsMore):
        state["task"] = task.state_dict()
    torch.save(state, part)
    os.replace(part, folder / "checkpoint.pt")


def _per(cpu_start: float, count: int) -> float:
    return round((time.process_time() - cpu_start) / max(1, count), 3)


def _report(folder: Path, line: dict[str, Any]) -> None:
    logger.info("%s %s", folder.name, json.dumps(line))
    with (folder / "curve.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({**line, "time": round(time.time())}) + "\n")
