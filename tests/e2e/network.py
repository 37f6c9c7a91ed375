"""Two machines with a cable between them: network namespaces, which need no name and end with the processes in them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

USER = [] if os.geteuid() == 0 else ["--user"]  # without root's rights, in a user namespace that gives them


@dataclass(frozen=True)
class Ends:
    """What a command is run with on either machine, and their addresses."""

    server: list[str]
    server_address: str
    laptop: list[str]
    laptop_address: str


@contextlib.contextmanager
def cable() -> Iterator[Ends]:
    """Two networks that reach each other and nobody else."""
    mapped = ["--map-root-user"] if USER else []
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_holder(["unshare", *USER, *mapped, "--net"]))
        inside = ["nsenter", "--target", str(server), *USER, "--net"]
        laptop = stack.enter_context(_holder([*inside, "unshare", "--net"]))
        outside = ["nsenter", "--target", str(laptop), *USER, "--net"]
        lines = [
            [*inside, "ip", "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", str(laptop)],
            [*inside, "ip", "address", "add", "10.77.0.1/24", "dev", "cable"],
            [*outside, "ip", "address", "add", "10.77.0.2/24", "dev", "cable"],
            *([*end, "ip", "link", "set", device, "up"] for end in (inside, outside) for device in ("lo", "cable")),
        ]
        for line in lines:
            subprocess.run(line, check=True)
        yield Ends(inside, "10.77.0.1", outside, "10.77.0.2")


@contextlib.contextmanager
def _holder(unshare: list[str]) -> Iterator[int]:
    """The process that keeps a network; it has it when it says so."""
    command = [*unshare, "sh", "-c", "echo there; exec cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()
