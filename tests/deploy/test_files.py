"""The files to deploy with name what there is, and are taken by the programs that read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.places import DOCS, ROOT

DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "Containerfile").read_text(encoding="utf-8")
UNIT = (DEPLOY / "cosyvoice-cpu.service").read_text(encoding="utf-8")
COMPOSE = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
STEPS = [
    line.split()
    for line in CONTAINERFILE.replace("\\\n", " ").splitlines()
    if line and not line.startswith("#")
]


def test_what_the_image_copies_is_in_the_clone() -> None:
    sources = [
        source
        for name, *words in STEPS
        if name == "COPY" and not words[0].startswith("--from")
        for source in words[:-1]
    ]
    assert "cosyvoice_cpu" in sources or "./cosyvoice_cpu" in sources
    for source in sources:
        assert (ROOT / source).exists(), source


def test_the_image_runs_as_a_number_and_checks_its_health() -> None:
    assert ["USER", "10001:10001"] in STEPS
    assert any(step[0] == "HEALTHCHECK" and "/health" in " ".join(step) for step in STEPS)
    assert STEPS[-1] == ["ENTRYPOINT", '["cosyvoice-cpu",', '"serve"]']


@pytest.mark.parametrize("text", [CONTAINERFILE, COMPOSE, UNIT], ids=["image", "compose", "unit"])
def test_every_variable_that_is_set_is_one(text: str) -> None:
    table = (DOCS / "cli.md").read_text(encoding="utf-8").split("## Environment variables")[1]
    known = set(re.findall(r"^\| `(COSYVOICE_CPU_\w+)`", table, re.MULTILINE))
    assert set(re.findall(r"COSYVOICE_CPU_[A-Z_]+", text)) <= known


def test_the_compose_file_refuses_to_start_without_a_key() -> None:
    yaml = pytest.importorskip("yaml")
    service = yaml.safe_load(COMPOSE)["services"]["cosyvoice-cpu"]
    assert ":?" in service["environment"]["COSYVOICE_CPU_SERVE_API_KEY"]
    assert service["read_only"] is True
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")
def test_systemd_finds_nothing_wrong_with_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "cosyvoice-cpu.service"
    program = "/opt/cosyvoice-cpu/bin/cosyvoice-cpu"
    assert f"ExecStart={program} serve" in UNIT
    unit.write_text(UNIT.replace(program, sys.executable))  # it wants a program that is there
    done = subprocess.run(
        ["systemd-analyze", "verify", unit],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
