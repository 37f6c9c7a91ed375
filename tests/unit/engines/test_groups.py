"""Which control groups there are, and what is written into them. Folders stand for the kernel's."""

from __future__ import annotations

from pathlib import Path

import pytest

from portico.engines.groups import MAX_PROCESSES, Groups, find
from portico.model.spec import Resources
from portico.runtime import limits
from portico.wire.container import Group

PAIR = Resources(cpu=0.5, cpu_limit=2.0, memory=64, memory_limit=128)


def separate(folder: Path) -> Path:
    """Version 1, as root sees it; what the process is in."""
    for path in ("memory/a/b", "cpu/", "pids/"):
        (folder / path).mkdir(parents=True)
        (folder / path / "cgroup.procs").touch()
    (folder / "self").write_text("4:memory:/a/b\n3:cpu:/\n2:pids:/\n1:name=systemd:/\n0::/\n")
    return folder / "self"


def test_in_version_1_each_controller_has_a_hierarchy_of_its_own(tmp_path: Path) -> None:
    """Groups are made below the one that the server is in."""
    groups = find("mark", tmp_path, str(separate(tmp_path)))
    assert groups.controllers == {"memory", "cpu", "pids"}
    assert groups.of_container("ct-1", PAIR) == (
        Group(
            str(tmp_path / "memory/a/b/mark-ct-1"),
            {"memory.limit_in_bytes": str(128 << 20), "?memory.memsw.limit_in_bytes": str(128 << 20)},
        ),
        Group(str(tmp_path / "cpu/mark-ct-1"), {"cpu.shares": "512", "cpu.cfs_quota_us": "200000"}),
    )


def test_in_version_2_a_container_has_one_group(tmp_path: Path) -> None:
    """With a bound for its processes; swap does not count as memory."""
    groups = Groups(dict.fromkeys(("memory", "cpu", "pids"), tmp_path), "mark", unified=True)
    assert groups.of_container("ct-1", PAIR) == (
        Group(
            str(tmp_path / "mark-ct-1"),
            {
                "memory.max": str(128 << 20),
                "?memory.swap.max": "0",
                "memory.oom.group": "1",
                "cpu.weight": "50",
                "cpu.max": "200000 100000",
                "pids.max": str(MAX_PROCESSES),
            },
        ),
    )


@pytest.mark.parametrize("unified", [False, True])
def test_who_asks_for_no_limit_joins_no_group(tmp_path: Path, unified: bool) -> None:
    """That would take time at each start. A request reserves nothing."""
    groups = Groups(dict.fromkeys(("memory", "cpu", "pids"), tmp_path), unified=unified)
    assert groups.of_container("ct-1", Resources(cpu=1.0, memory=64)) == ()


def test_where_none_can_be_made_there_are_none(tmp_path: Path) -> None:
    """The server's own group is there, and not for it to write."""
    membership = separate(tmp_path)
    for path in tmp_path.rglob("cgroup.procs"):
        path.unlink()
    groups = find("mark", tmp_path, str(membership))
    assert groups.controllers == set()
    assert groups.of_container("ct-1", PAIR) == ()
    assert not groups.overran("ct-1")


def test_in_version_2_the_server_makes_room_for_groups_beside_its_own(tmp_path: Path) -> None:
    """It goes into a group below, and hands the controllers on."""
    ours = tmp_path / "system.slice" / "portico.service"
    (ours / "server").mkdir(parents=True)
    for path in (tmp_path / "cgroup.controllers", ours / "cgroup.procs", ours / "server" / "cgroup.procs"):
        path.touch()
    (tmp_path / "self").write_text("0::/system.slice/portico.service\n")
    groups = find("mark", tmp_path, str(tmp_path / "self"))
    assert groups.controllers == {"memory", "cpu", "pids"}
    assert (ours / "cgroup.subtree_control").read_text() == "+memory +cpu +pids"
    assert (ours / "server" / "cgroup.procs").read_text().isdecimal()


@pytest.mark.parametrize(("killed", "expected"), [("oom_kill 0", False), ("oom_kill 2", True)])
def test_the_kernel_says_who_took_too_much(tmp_path: Path, killed: str, expected: bool) -> None:
    """In both versions it counts what it has killed."""
    (tmp_path / "portico-ct-1").mkdir()
    (tmp_path / "portico-ct-1" / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\n{killed}\n")
    (tmp_path / "portico-ct-1" / "memory.events").write_text(f"low 0\noom 1\n{killed}\noom_group_kill 0\n")
    assert Groups({"memory": tmp_path}).overran("ct-1") is expected
    assert Groups({"memory": tmp_path}, unified=True).overran("ct-1") is expected


def test_a_container_sets_the_limits_before_it_joins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order; a setting that this kernel lacks is left out when that is said."""
    written: list[tuple[str, str]] = []

    def write(path: str, text: str) -> None:
        if "memsw" in path:
            raise FileNotFoundError(path)
        written.append((Path(path).name, text))

    monkeypatch.setattr(limits, "_write", write)
    limits.join([Group(str(tmp_path / "g"), {"?memory.memsw.limit_in_bytes": "7", "memory.limit_in_bytes": "7"})])
    assert written == [("memory.limit_in_bytes", "7"), ("cgroup.procs", "0")]
    assert (tmp_path / "g").is_dir()
