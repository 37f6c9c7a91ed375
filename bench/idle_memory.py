"""Memory: one idle container's own (unshared), and the server's at rest, against an idle bare uvicorn."""

from __future__ import annotations

from collections.abc import Iterator

import psutil

from bench.results import Goal, Run, Table
from bench.stand import APPS, get, get_when_up, memory, stand, uvicorn


def main(run: Run) -> Iterator[Table]:
    """After one request to each, quick or not."""
    with stand() as here, uvicorn("bare:warm") as port:
        assert here.process is not None
        server = psutil.Process(here.process.pid)
        at_rest = memory(server.pid)
        host = here.deploy(APPS / "warm_app.py")["idle"]
        get(here.port, host)
        get_when_up(port)
        template = server.children()[0]
        containers = [memory(child.pid)["uss"] for child in template.children()]
        bare = next(c for c in psutil.Process().children() if "uvicorn" in " ".join(c.cmdline()))
        yield Table(
            "memory, MB",
            {
                "container, own (uss)": max(containers),
                "server at rest": at_rest,
                "server with two apps": memory(server.pid),
                "template, once per image": memory(template.pid),
                "bare uvicorn": memory(bare.pid),
            },
            (
                Goal(
                    "memory of an idle container (USS)",
                    max(containers),
                    "MB",
                    at_most=15,
                    ours=f"{max(containers)} MB",
                    beside=f"{memory(bare.pid)['uss']} MB, bare uvicorn",
                ),
            ),
        )
