"""Control groups, where this server may make some: limits of memory, processor time and processes.

Version 1 (a hierarchy for each controller, for root) and version 2 (one hierarchy, where it is delegated to us, as by
systemd with Delegate=yes). A container joins its groups itself, before the user's code runs. To join takes the kernel
up to 20 ms: only a container that asks for a limit pays for that.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from portico.model.spec import Resources
from portico.wire.container import Group

MAX_PROCESSES: Final = 4096  # of the containers of an image together
_log = logging.getLogger("portico.engine")
_ROOT: Final = Path("/sys/fs/cgroup")
_CONTROLLERS: Final[tuple[str, ...]] = ("memory", "cpu", "pids")
_PERIOD: Final = 100_000  # microseconds, the kernel's default
_V1_OOM, _V2_OOM = "memory.oom_control", "memory.events"


class Groups:
    """Groups of this server's containers. bases: where to make them, by controller; in version 2 all are one folder.

    mark: what their names begin with.
    """

    def __init__(self, bases: dict[str, Path], mark: str = "portico", *, unified: bool = False) -> None:
        self._bases = bases
        self._mark = mark
        self._unified = unified

    def __repr__(self) -> str:
        return f"<Groups {'v2' if self._unified else 'v1'} {sorted(self._bases)}>"

    @classmethod
    def of(cls, document: dict[str, Any]) -> Groups:
        """Those of another process of the same server, by its `document`."""
        bases = {name: Path(path) for name, path in document["bases"].items()}
        return cls(bases, document["mark"], unified=document["unified"])

    @property
    def document(self) -> dict[str, Any]:
        """All of it, for another process."""
        bases = {name: str(path) for name, path in self._bases.items()}
        return {"bases": bases, "mark": self._mark, "unified": self._unified}

    @property
    def controllers(self) -> frozenset[str]:
        """What can be limited."""
        return frozenset(self._bases)

    def of_container(self, container_id: str, resources: Resources) -> tuple[Group, ...]:
        """What it has to join; nothing, when it asks for no limit."""
        if resources.memory_limit is None and resources.cpu_limit is None:
            return ()
        settings = {name: self._settings(name, resources) for name in self._bases}
        found: dict[str, dict[str, str]] = {}
        for name, values in settings.items():
            if values and (self._unified or name != "pids"):  # else its template is in such a group
                found.setdefault(str(self._bases[name] / self._title(container_id)), {}).update(values)
        return tuple(Group(folder, values) for folder, values in found.items())

    def overran(self, container_id: str) -> bool:
        """Whether the kernel has killed something in it because it took more memory than it may."""
        base = self._bases.get("memory")
        if base is None:
            return False
        try:
            text = (base / self._title(container_id) / (_V2_OOM if self._unified else _V1_OOM)).read_text()
        except OSError:
            return False
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in text.splitlines())

    def admit(self, name: str, pid: int) -> None:
        """Bound the number of processes below this one."""
        base = self._bases.get("pids")
        if base is None:
            return
        try:
            (base / self._title(name)).mkdir()
            (base / self._title(name) / "pids.max").write_text(str(MAX_PROCESSES))
            (base / self._title(name) / "cgroup.procs").write_text(str(pid))
        except OSError as error:
            _log.warning("the number of processes of %s is not limited: %s", name, error)

    def sweep(self) -> None:
        """Remove all that are empty."""
        for base in set(self._bases.values()):
            for folder in base.glob(f"{self._mark}-*"):
                with contextlib.suppress(OSError):
                    folder.rmdir()

    def remove(self, name: str) -> None:
        """Remove the groups of a container or of a template that is gone."""
        for folder in {base / self._title(name) for base in self._bases.values()}:
            with contextlib.suppress(OSError):  # it had none
                folder.rmdir()

    def _title(self, name: str) -> str:
        return f"{self._mark}-{name}"

    def _settings(self, controller: str, resources: Resources) -> dict[str, str]:
        return dict(_unified(controller, resources) if self._unified else _separate(controller, resources))


def find(mark: str = "portico", root: Path = _ROOT, membership: str = "/proc/self/cgroup") -> Groups:
    """The groups that this process may make. In version 2 it goes into one of its own, as the kernel wants it.

    What groups of this mark there are already, of a server that was killed, are removed.
    """
    with open(membership) as file:
        lines = [line.rstrip("\n").split(":", 2) for line in file]
    separate = {name: root / name / path.lstrip("/") for _, names, path in lines for name in names.split(",")}
    bases = {name: separate[name] for name in _CONTROLLERS if name in separate and _may_make(separate[name])}
    if bases:
        return _swept(Groups(bases, mark))
    ours = next((root / path.lstrip("/") for number, _, path in lines if number == "0"), root)
    if (root / "cgroup.controllers").exists() and ours != root and _may_make(ours) and _delegate(ours):
        return _swept(Groups(dict.fromkeys(_CONTROLLERS, ours), mark, unified=True))
    return Groups({})


def _swept(groups: Groups) -> Groups:
    groups.sweep()
    return groups


def _may_make(folder: Path) -> bool:
    return os.access(folder / "cgroup.procs", os.W_OK) and os.access(folder, os.W_OK)


def _delegate(folder: Path) -> bool:
    """Hand the controllers of this group on to groups below it, which it may do when no process is in itself."""
    own = folder / "server"
    try:
        own.mkdir(exist_ok=True)
        (own / "cgroup.procs").write_text(str(os.getpid()))
        (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in _CONTROLLERS))
    except OSError as error:
        _log.info("no control groups: %s", error)
        with contextlib.suppress(OSError):
            (folder / "cgroup.procs").write_text(str(os.getpid()))
            own.rmdir()
        return False
    return True


def _separate(controller: str, resources: Resources) -> Iterator[tuple[str, str]]:
    if controller == "memory" and resources.memory_limit is not None:
        yield "memory.limit_in_bytes", str(resources.memory_limit << 20)
        yield "?memory.memsw.limit_in_bytes", str(resources.memory_limit << 20)  # where swap is counted
    if controller == "cpu" and resources.cpu is not None:
        yield "cpu.shares", str(max(2, round(resources.cpu * 1024)))
    if controller == "cpu" and resources.cpu_limit is not None:
        yield "cpu.cfs_quota_us", str(max(1000, round(resources.cpu_limit * _PERIOD)))


def _unified(controller: str, resources: Resources) -> Iterator[tuple[str, str]]:
    if controller == "memory" and resources.memory_limit is not None:
        yield "memory.max", str(resources.memory_limit << 20)
        yield "?memory.swap.max", "0"
        yield "memory.oom.group", "1"
    if controller == "cpu" and resources.cpu is not None:
        yield "cpu.weight", str(min(10_000, max(1, round(resources.cpu * 100))))
    if controller == "cpu" and resources.cpu_limit is not None:
        yield "cpu.max", f"{max(1000, round(resources.cpu_limit * _PERIOD))} {_PERIOD}"
    if controller == "pids":
        yield "pids.max", str(MAX_PROCESSES)
