"""CPU and memory limits of the process's own control group and those above it."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosyvoice_cpu.system.control_groups import cpu_quota, memory_limit
from cosyvoice_cpu.system.threads import default_threads


class Machine:
    """A /proc/self and mounted control groups, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.process = folder / "proc"
        self.process.mkdir()
        self.mounted = folder / "sys fs"
        self.mounts: list[str] = ["21 1 0:5 / /proc rw - proc proc rw"]

    def mount(self, kind: str, root: str = "/", options: str = "rw") -> Path:
        place = self.mounted / f"mount{len(self.mounts)}"
        place.mkdir(parents=True)
        written = str(place).replace(" ", "\\040")
        self.mounts.append(f"30 23 0:26 {root} {written} rw,nosuid - {kind} {kind} {options}")
        (self.process / "mountinfo").write_text("\n".join(self.mounts) + "\n")
        return place

    def group(self, *lines: str) -> None:
        (self.process / "cgroup").write_text("\n".join(lines) + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def limits(folder: Path, **values: str) -> None:
    """Files such as cpu.max, named cpu_max here, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("_", ".", 1)).write_text(value + "\n")


@pytest.mark.parametrize(
    ("unit", "piece", "expected"),
    [
        ("150000 100000", "max 100000", 1.5),
        ("max 100000", "200000 100000", 2.0),
        ("400000 100000", "50000 100000", 0.5),
        ("50000 100000", "400000 100000", 0.5),
        ("max 100000", "max 100000", None),
        ("max", "garbage", None),
        ("0 100000", "100000 0", None),
    ],
)
def test_the_smallest_quota_on_the_way_up_counts(
    machine: Machine, unit: str, piece: str, expected: float | None
) -> None:
    root = machine.mount("cgroup2")
    machine.group("0::/system.slice/voice.service/worker")
    limits(root / "system.slice/voice.service", cpu_max=unit)
    limits(root / "system.slice/voice.service/worker", cpu_max=piece)
    limits(root / "system.slice/other.service", cpu_max="1000 100000")
    assert cpu_quota(machine.process) == expected


def test_memory_limits_are_found_in_the_same_way(machine: Machine) -> None:
    root = machine.mount("cgroup2")
    machine.group("0::/a/b")
    limits(root / "a", memory_max="2000000000")
    limits(root / "a/b", memory_max="max")
    assert memory_limit(machine.process) == 2_000_000_000
    limits(root / "a/b", memory_max="900000000")
    assert memory_limit(machine.process) == 900_000_000


def test_version_1_has_a_tree_for_each_controller(machine: Machine) -> None:
    cpu = machine.mount("cgroup", options="rw,cpu,cpuacct")
    memory = machine.mount("cgroup", options="rw,memory")
    machine.mount("cgroup", options="rw,cpuset")
    machine.group("5:cpuset:/x", "4:memory:/m/n", "3:cpu,cpuacct:/c", "1:name=systemd:/s", "0::/u")
    limits(cpu, **{"cpu_cfs_quota_us": "-1", "cpu_cfs_period_us": "100000"})
    limits(cpu / "c", **{"cpu_cfs_quota_us": "250000", "cpu_cfs_period_us": "100000"})
    limits(memory / "m", memory_limit_in_bytes="1500000000")
    limits(memory / "m/n", memory_limit_in_bytes="9223372036854771712")
    assert cpu_quota(machine.process) == 2.5
    assert memory_limit(machine.process) == 1_500_000_000


def test_both_versions_at_once_give_the_smaller_limit(machine: Machine) -> None:
    first = machine.mount("cgroup", options="rw,cpu")
    second = machine.mount("cgroup2")
    machine.group("2:cpu:/a", "0::/b")
    limits(first / "a", **{"cpu_cfs_quota_us": "300000", "cpu_cfs_period_us": "100000"})
    limits(second / "b", cpu_max="200000 100000")
    assert cpu_quota(machine.process) == 2.0


@pytest.mark.parametrize("root", ["/docker/abc", "/"])
def test_a_container_that_sees_the_host_s_names_finds_its_own_limit(
    machine: Machine, root: str
) -> None:
    place = machine.mount("cgroup2", root=root)
    machine.group("0::/docker/abc")
    limits(place, cpu_max="100000 100000", memory_max="1000000000")
    assert cpu_quota(machine.process) == 1.0
    assert memory_limit(machine.process) == 1_000_000_000


def test_a_group_below_the_container_s_is_found_from_the_host_s_name(machine: Machine) -> None:
    place = machine.mount("cgroup2", root="/docker/abc")
    machine.group("0::/docker/abc/inner")
    limits(place, cpu_max="400000 100000")
    limits(place / "inner", cpu_max="300000 100000")
    assert cpu_quota(machine.process) == 3.0


def test_a_process_moved_out_of_its_name_space_is_bound_by_what_is_mounted(
    machine: Machine,
) -> None:
    place = machine.mount("cgroup2")
    machine.group("0::/../other")
    limits(place, cpu_max="400000 100000")
    limits(place.parent / "other", cpu_max="100000 100000")
    assert cpu_quota(machine.process) == 4.0


def test_without_control_groups_there_is_no_limit(machine: Machine, tmp_path: Path) -> None:
    assert cpu_quota(tmp_path / "nothing") is memory_limit(tmp_path / "nothing") is None
    (machine.process / "mountinfo").write_bytes(b"\xff garbage\n1 2\n - cgroup2\n")
    (machine.process / "cgroup").write_bytes(b"\xff\n:::\n0::relative\n")
    assert cpu_quota(machine.process) is memory_limit(machine.process) is None


def test_the_default_threads_keep_to_the_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cosyvoice_cpu.system.threads.physical_cores", lambda _: set("abcdefgh"))
    for quota, threads in [(None, 8), (0.5, 1), (2.9, 2), (64.0, 8)]:
        monkeypatch.setattr("cosyvoice_cpu.system.threads.cpu_quota", lambda quota=quota: quota)
        assert default_threads() == threads
