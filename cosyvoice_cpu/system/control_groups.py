"""What the process's control group grants of processors and memory (Linux).

A limit may be set on the process's own group or on any above it (a systemd unit's slice, a pod), in
version 1 or 2 of the interface, and a container may see the host's names of its groups: then
/proc/self/cgroup has a path that begins above what is mounted here. So the own group is looked up
in the list of mounts, and the smallest limit on the way up to the mount counts.
Source: Linux, Documentation/admin-guide/cgroup-v2.rst, cgroups(7), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")
_NO_LIMIT = 2**60  # version 1 writes "no limit" as a huge number of bytes
_OCTAL = re.compile(r"\\([0-7]{3})")  # how mountinfo writes blanks


def cpu_quota(process: Path = PROCESS) -> float | None:
    """CPUs that may be used, None without a limit."""
    shares = [
        share
        for version, group in _groups(process, "cpu")
        if (share := _share_of_cpus(version, group)) is not None
    ]
    return min(shares, default=None)


def memory_limit(process: Path = PROCESS) -> int | None:
    """Bytes that may be used, None without a limit."""
    name = {1: "memory.limit_in_bytes", 2: "memory.max"}
    limits = [
        int(text)
        for version, group in _groups(process, "memory")
        if (text := _read(group / name[version]).strip()).isdigit() and int(text) < _NO_LIMIT
    ]
    return min(limits, default=None)


def _share_of_cpus(version: int, group: Path) -> float | None:
    if version == 2:
        words = _read(group / "cpu.max").split()
    else:
        words = [_read(group / f"cpu.cfs_{kind}_us").strip() for kind in ("quota", "period")]
    try:
        limit, period = int(words[0]), int(words[1])
    except (IndexError, ValueError):  # no such file, or "max"
        return None
    return limit / period if limit > 0 and period > 0 else None


def _groups(process: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, folder) of the process's group and of those above it, as far as they are seen."""
    own = _own_groups(process)
    for version, controllers, root, mount in _mounts(process):
        if version == 1 and controller not in controllers:
            continue
        name = own.get("" if version == 2 else controller)
        if name is None:
            continue
        folder = mount
        yield version, folder
        for part in _below(name, root, mount):
            folder = folder / part
            yield version, folder


def _below(name: str, root: str, mount: Path) -> tuple[str, ...]:
    """The way from the mounted folder, which is group `root`, down to group `name`."""
    group = PurePosixPath(name)
    for start in (root, "/"):  # a name space may count from the mount, whatever its root is called
        if start == "/" or group.is_relative_to(start):
            parts = group.relative_to(start).parts
            if ".." not in parts and mount.joinpath(*parts).is_dir():
                return parts
    return ()  # the host's name of a group of which this mount is all that is seen


def _own_groups(process: Path) -> dict[str, str]:
    """Controller to the path of the process's group; "" is version 2."""
    found: dict[str, str] = {}
    for line in _read(process / "cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if name.startswith("/"):
            names = [""] if number == "0" and not controllers else controllers.split(",")
            found |= dict.fromkeys(names, name)
    return found


def _mounts(process: Path) -> Iterator[tuple[int, set[str], str, Path]]:
    """(version, controllers, group that is its root, folder) of each mount of control groups."""
    for line in _read(process / "mountinfo").splitlines():
        before, _, behind = line.partition(" - ")
        fields, kind = before.split(), behind.split()
        if len(fields) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        root, mount = (_OCTAL.sub(lambda code: chr(int(code[1], 8)), text) for text in fields[3:5])
        version = 2 if kind[0] == "cgroup2" else 1
        yield version, set(kind[2].split(",")), root, Path(mount)


def _read(path: Path) -> str:
    """The text of a small file, "" if it can't be read."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
