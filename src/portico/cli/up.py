"""`portico up`: the server."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import click

from portico.cli.https import https_options, speaking_https
from portico.cli.spawn import Attachment
from portico.cli.systemd import unit
from portico.cli.terminal import Terminal
from portico.client.profiles import config_path
from portico.client.settings import load_settings
from portico.model import errors
from portico.model.addresses import parse_public_address
from portico.model.proxies import parse_networks
from portico.model.settings import MAX_INGRESS, Settings
from portico.model.sizes import parse_size
from portico.server.main import ServerOptions, run

_PUBLIC = (
    "Whoever reaches this address reaches the endpoints. Functions run as your user, and read and write what you may:\n"
    "serve only code that you trust. See docs/security.md."
)


@click.command(short_help="Run the server.")
@click.option("-d", "--detach", is_flag=True, help="Run it in the background; `portico down` ends it.")
@click.option(
    "--queue-limit", type=click.IntRange(min=1), metavar="N", help="Requests that may wait for one function (2000)."
)
@click.option(
    "--max-containers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Containers of a function that has no max_containers of its own (100).",
)
@click.option(
    "--drain-timeout",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="What runs on a replaced version ends then. Default: PORTICO_DRAIN_TIMEOUT, or the function's timeout.",
)
@click.option(
    "--trusted-proxies",
    metavar="CIDR[,CIDR]",
    help="Believe X-Forwarded-For, -Proto and -Host of proxies there. Default: PORTICO_TRUSTED_PROXIES, or none.",
)
@click.option(
    "--max-websocket-message",
    metavar="SIZE",
    help="Or 'unlimited'; a larger one closes with 1009. Default: PORTICO_MAX_WEBSOCKET_MESSAGE, or 2MiB.",
)
@click.option(
    "--redirect-after",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Send clients of longer requests to the URL of the result (303). Default: PORTICO_REDIRECT_AFTER, or never.",
)
@click.option(
    "--public-address",
    metavar="ADDRESS[,ADDRESS]",
    help="Where the internet reaches the server, to check custom domains. Default: PORTICO_PUBLIC_ADDRESS.",
)
@click.option(
    "--ingress",
    type=click.IntRange(1, MAX_INGRESS),
    metavar="N",
    help="Processes that share the port, each with functions of its own. Default: PORTICO_INGRESS, or 1.",
)
@click.option("--listen", metavar="HOST:PORT", help="Listen here; without it, where PORTICO_LISTEN says.")
@https_options
@click.option("--systemd", is_flag=True, help="Print a unit for systemd that runs the server like this, and exit.")
@click.option("--ready-fd", type=int, hidden=True, help="Say here that the server is ready, or why it is not.")
@click.option("--lifetime-fd", type=int, hidden=True, help="End when the other end of this pipe is closed.")
@click.pass_context
def up(
    ctx: click.Context,
    /,
    detach: bool,
    queue_limit: int | None,
    max_containers: int | None,
    drain_timeout: int | None,
    trusted_proxies: str | None,
    max_websocket_message: str | None,
    redirect_after: int | None,
    public_address: str | None,
    ingress: int | None,
    listen: str | None,
    systemd: bool,
    ready_fd: int | None,
    lifetime_fd: int | None,
    **https: str | bool | None,
) -> None:
    """Run the server, and bring up the apps that are deployed. Ctrl-C or SIGTERM ends it.

    PORTICO_HOME, PORTICO_LISTEN, PORTICO_DOMAIN and PORTICO_WORKSPACE say where and as what.
    """
    settings = load_settings()
    limits = settings.limits
    limits = replace(
        limits,
        queue=queue_limit or limits.queue,
        containers=max_containers or limits.containers,
        drain=drain_timeout or limits.drain,
    )
    settings = replace(settings, limits=limits)
    if trusted_proxies is not None:
        _check(parse_networks, trusted_proxies, "--trusted-proxies")
        settings = replace(settings, trusted_proxies=trusted_proxies)
    if max_websocket_message is not None:
        _check(parse_size, max_websocket_message, "--max-websocket-message")
        settings = replace(settings, max_websocket_message=max_websocket_message)
    if redirect_after is not None:
        settings = replace(settings, redirect_after=redirect_after)
    if public_address is not None:
        _check(parse_public_address, public_address, "--public-address")
        settings = replace(settings, public_address=public_address)
    if ingress is not None:
        settings = replace(settings, ingress=ingress)
    if listen is not None:
        settings = _listening(settings, listen)
    settings = speaking_https(settings, https)
    terminal = Terminal.standard()
    if systemd:
        terminal.result(unit(settings))
        return
    if settings.is_public and ready_fd is None:
        terminal.note(_PUBLIC)
    if detach:
        _detach(settings, terminal)
    else:
        announce = ready_fd is None  # otherwise a command waits at the other end, and says what there is to say
        private = (config_path(os.environ),)  # tokens are in it
        run_options = ServerOptions(ready_fd=ready_fd, lifetime_fd=lifetime_fd, announce=announce, private=private)
        ctx.exit(run(settings, run_options))


def _check(parse: Callable[[str, str], object], value: str, flag: str) -> None:
    try:
        parse(value, flag)
    except errors.InvalidError as error:
        raise click.UsageError(f"{error.message} {error.hint}") from None


def _listening(settings: Settings, listen: str) -> Settings:
    try:
        return replace(settings, listen=listen).validate()
    except errors.InvalidError as error:
        raise click.BadParameter(f"not host:port: {listen!r}. {error.hint}", param_hint="--listen") from None


def _detach(settings: Settings, terminal: Terminal) -> None:
    with Attachment(settings, terminal, own=False, roam=False) as server:
        server.begin()
        info = server.ready()
        if not server.started:
            terminal.note(f"A server is running already, on {info.listen} (pid {info.pid}), with options of its own.")
            terminal.note("To start it with others, end it first: portico down")
        elif info.authority is not None:
            terminal.note(f"HTTPS clients have to know its own authority: curl --cacert {info.authority} …")
