"""A server for the tests of the command line: the real control API on its real socket, doubles behind it.

Started like the real one (`up --ready-fd N [--lifetime-fd N]`). STUB names a reason not to come up. It ends when
asked to, or when its lifetime does, and leaves what it was asked in the file `calls` of its home.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import sys
import threading
import time

import uvicorn

from portico.api.app import make_app
from portico.api.fake import FakeServices
from portico.client.settings import load_settings
from portico.wire.control import LogLine, ServerInfo

PROBLEMS = {
    "port": {"code": "port_in_use", "message": "The port is in use by nginx."},
    "home": {"code": "home_in_use", "message": "Another server has this home."},
    "state": {"code": "state", "message": "The database is broken.", "hint": "Restore it."},
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--lifetime-fd", type=int)
    options = parser.parse_args()
    settings = load_settings()
    how = os.environ.get("STUB", "")
    if how == "port" and settings.listen_port != int(os.environ["STUB_TAKEN"]):
        how = ""
    if how == "die":
        sys.exit("no reason given")
    if how:
        os.write(options.ready_fd, json.dumps({"type": "problem", **PROBLEMS[how]}).encode() + b"\n")
        sys.exit(1)
    info = ServerInfo(
        version="0",
        pid=os.getpid(),
        workspace=settings.workspace,
        domain=settings.domain,
        listen=settings.listen,
        url=f"http://{{label}}.localhost:{settings.listen_port}",
        home=str(settings.home),
        deployed_apps=int(os.environ.get("STUB_DEPLOYED", "0")),
    )
    line = LogLine(at=time.time(), function="square", container_id="ct-1", source="stdout", line="hello from inside")
    services = FakeServices(info, lines=[line])
    settings.run_dir.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(settings.control_socket))
    listener.listen()
    app = make_app(*[services] * 9)
    server = uvicorn.Server(
        uvicorn.Config(app, loop="asyncio", lifespan="off", log_level="error", timeout_graceful_shutdown=0)
    )

    def end() -> None:
        server.should_exit = True

    services.on_stop = end

    def outlive() -> None:
        os.read(options.lifetime_fd, 1)
        end()

    if options.lifetime_fd is not None:
        threading.Thread(target=outlive, daemon=True).start()
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
    asyncio.run(server.serve(sockets=[listener]))
    settings.control_socket.unlink()
    (settings.home / "calls").write_text("\n".join(services.calls))


main()
