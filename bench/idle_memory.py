"""Memory: one idle container's own (unshared), and the server's at rest, against an idle bare uvicorn."""

from __future__ import annotations

import psutil

from bench.stand import APPS, command, get, get_when_up, memory, report, stand, uvicorn


def main(quick: bool = False) -> None:
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
        report(
            "memory, MB",
            {
                "container, own (uss)": max(containers),
                "server at rest": at_rest,
                "server with two apps": memory(server.pid),
                "template, once per image": memory(template.pid),
                "bare uvicorn": memory(bare.pid),
            },
        )


if __name__ == "__main__":
    command(main)
