"""`portico down`: the end of the server."""

from __future__ import annotations

import os
import select

import click

from portico.cli import options
from portico.cli.terminal import Terminal
from portico.client.control import ControlClient
from portico.client.settings import load_settings
from portico.model import errors

_PATIENCE = 60.0  # seconds; containers are given time to finish


@click.command(short_help="End the server.")
@options.yes
def down(yes: bool) -> None:
    """End the server and its containers. Deployed apps come back with the next `portico up`."""
    terminal = Terminal.standard()
    client = ControlClient(load_settings().control_socket)
    info = client.find_server()
    if info is None:
        terminal.note("No Portico server is running.")
        return
    if info.deployed_apps:
        apps = "one deployed app" if info.deployed_apps == 1 else f"{info.deployed_apps} deployed apps"
        options.confirm(f"This takes {apps} off the net. End the server?", yes)
    _end(client, info.pid)
    terminal.note("The server has ended.")


def _end(client: ControlClient, pid: int) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        client.stop_server()
        if not select.select([process], [], [], _PATIENCE)[0]:
            raise errors.TimeoutError(
                f"The server (pid {pid}) has not ended after {_PATIENCE:g} s.", hint="See its log."
            )
    finally:
        os.close(process)
