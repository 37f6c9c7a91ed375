"""HTTPS in front of the door: what Caddy (`edge/`) needs to know of the server, and what the server learns from it.

All of it runs on the control plane's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import shutil
import ssl
import time
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from portico.core.certificates import Failures
from portico.edge.ask import make_ask
from portico.edge.document import Plan
from portico.edge.keeper import Keeper
from portico.edge.news import News, State
from portico.edge.program import caddy_version, find_caddy
from portico.edge.storage import forget, hosts_below
from portico.edge.wildcard import Wildcard, renewal_time
from portico.ingress.front import Front
from portico.model.errors import InvalidError, StateError
from portico.model.https import Https, is_local
from portico.model.settings import Settings
from portico.server.dataplane import Bridge, DataPlane
from portico.server.domains import Domains

log = logging.getLogger("portico.https")

_VISITS_EVERY: Final = 60.0  # seconds between looks whether a name is to be tried again
_VISIT: Final = 200.0  # seconds for one attempt
_FIRST_DELAY: Final = 60.0  # seconds after a wildcard certificate could not be had
_MAX_DELAY: Final = 6 * 3600.0
_LONGEST_SLEEP: Final = 86400.0  # seconds: clocks are set

ServeAsk = Callable[[object], Awaitable[int]]  # serve an ASGI application on 127.0.0.1, on a port that it returns


class HttpsControl:
    """Caddy, and what there is to do about certificates."""

    def __init__(
        self,
        settings: Settings,
        https: Https,
        front: Front,
        *,
        data: DataPlane,
        bridge: Bridge,
        domains: Domains,
        known: Callable[[], Awaitable[object]],
    ) -> None:
        """known: returns when it is known which names there are."""
        self._settings = settings
        self._https = https
        self._front = front
        self._data = data
        self._bridge = bridge
        self._domains = domains
        self._known = known
        self._failures = Failures()
        self._dropped: set[str] = set()
        self._keeper: Keeper | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, serve_ask: ServeAsk) -> None:
        """Return when HTTPS is spoken; an error of the model when it cannot be."""
        _check_files(self._https)
        (self._settings.home / "https").mkdir(mode=0o700, exist_ok=True)
        program = await asyncio.to_thread(find_caddy, self._https.caddy)
        path = f"/{secrets.token_urlsafe(24)}"
        port = await serve_ask(make_ask(path, self._allowed))
        self._keeper = keeper = Keeper(program, self._plan(f"http://127.0.0.1:{port}{path}"), self._heard)
        wildcard = self._wildcard()
        stored = None if wildcard is None else await asyncio.to_thread(wildcard.stored)
        if stored is not None:
            await keeper.change(wildcard=stored)
        self._domains.on_added, self._domains.on_removed = self._added, self._removed
        await keeper.start()
        if wildcard is not None:
            self._do(self._renew(wildcard, keeper))
        self._do(self._remember())
        self._do(self._try_again())

    def drain(self) -> None:
        """The server is ending."""
        if self._keeper is not None:
            self._keeper.drain()

    async def close(self) -> None:
        """End it; the ingress has closed."""
        for task in self._tasks:
            task.cancel()
        if self._keeper is not None:
            await self._keeper.close()

    # -- inside ---------------------------------------------------------------------------------------------------
    def _plan(self, ask: str) -> Plan:
        settings, https = self._settings, self._https
        return Plan(
            domain=settings.domain,
            https=https.address(settings.domain),
            http=https.http_address(settings.domain),
            upstream=settings.front_socket,
            admin=settings.run_dir / "caddy.sock",
            ask=ask,
            storage=caddy_folder(settings.home),
            proxies=tuple(map(str, settings.trusted_networks)),
            email=https.acme_email,
            authority=https.authority,
            root=https.acme_root,
            public=bool(not is_local(settings.domain) or https.acme_ca or https.acme_email),
        )

    def _wildcard(self) -> Wildcard | None:
        https = self._https
        if not https.dns_hook:
            return None
        return Wildcard(
            domain=self._settings.domain,
            authority=https.authority,
            root=https.acme_root,
            email=https.acme_email,
            hook=tuple(https.dns_command),
            dns_wait=https.dns_wait,
            folder=self._settings.home / "https" / "wildcard",
        )

    def _do(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _allowed(self, host: str) -> bool:
        """Whether this name may have a certificate: it leads to a living app, or is the server's own."""
        if not self._failures.may_try(host, time.monotonic()):
            return False
        await self._known()
        return host == self._settings.domain or await self._bridge.call(self._data.is_live, host)

    async def _drop(self, domains: set[str]) -> None:
        if domains == self._dropped or self._keeper is None:
            return
        self._dropped = domains
        try:
            await self._keeper.change(dropped=tuple(sorted(domains)))
        except StateError:
            log.exception("Caddy could not be told which domains are gone")

    # -- what becomes of domains ----------------------------------------------------------------------------------
    async def _removed(self, domain: str) -> None:
        """This domain is registered no longer: hosts that had a certificate by it get no connection."""
        folder = caddy_folder(self._settings.home)
        hosts = await asyncio.to_thread(hosts_below, folder, domain)
        gone = {host for host in hosts if not await self._bridge.call(self._data.is_live, host)}
        for host in gone:
            await asyncio.to_thread(forget, folder, host)
        await self._drop(self._dropped | gone)

    async def _added(self, domain: str) -> None:
        """This domain is registered now: it is to be tried at once."""
        self._failures.forget(domain)
        await self._drop({host for host in self._dropped if domain not in (host, f"*.{host.partition('.')[2]}")})

    # -- what becomes of certificates -----------------------------------------------------------------------------
    def _heard(self, news: News) -> None:
        if news.state is State.FAILED:
            self._failures.failed(news.host, time.monotonic())
        else:
            self._failures.forget(news.host)
        self._bridge.post(self._front.set_failed, news.host, news.state is State.FAILED)
        detail = news.host if news.state is State.ISSUED else f"{news.host}: {news.reason}"
        self._do(self._domains.set_certificate(news.host, news.state, detail))

    async def _remember(self) -> None:
        """HTTP goes on for domains that had no certificate when the server ended."""
        for name, domain in (await self._domains.known()).items():
            if domain.certificate_state == State.FAILED and not name.startswith("*."):
                self._bridge.post(self._front.set_failed, name, True)
                self._failures.failed(name, time.monotonic())

    async def _try_again(self) -> None:
        """Visit the names for which no certificate could be had, when it is time to."""
        while True:
            await asyncio.sleep(_VISITS_EVERY)
            for host in self._failures.due(time.monotonic()):
                if await self._allowed(host):
                    await self._visit(host)
                else:
                    self._failures.forget(host)

    async def _visit(self, host: str) -> None:
        """Have Caddy ask for a certificate, as a first visitor would."""
        address = self._https.address(self._settings.domain)
        there = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(address.host, address.host)  # noqa: S104
        anything = ssl.create_default_context()
        anything.check_hostname, anything.verify_mode = False, ssl.CERT_NONE
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            connecting = asyncio.open_connection(there, address.port, ssl=anything, server_hostname=host)
            _, writer = await asyncio.wait_for(connecting, _VISIT)
            writer.close()
            self._failures.forget(host)
            self._bridge.post(self._front.set_failed, host, False)

    async def _renew(self, wildcard: Wildcard, keeper: Keeper) -> None:
        """Have a certificate for the server's own names, always."""
        delay = _FIRST_DELAY
        while True:
            pem = await asyncio.to_thread(wildcard.stored)
            wait = 0.0 if pem is None else renewal_time(pem) - time.time()
            if wait > 0:
                await asyncio.sleep(min(wait, _LONGEST_SLEEP))
                continue
            try:
                await keeper.change(wildcard=await wildcard.issue())
            except (StateError, OSError) as error:
                log.error("no certificate for *.%s: %s Trying again in %g s.", wildcard.domain, error, delay)
                await asyncio.sleep(delay)
                delay = min(delay * 2, _MAX_DELAY)
            else:
                log.info("there is a certificate for %s and *.%s", wildcard.domain, wildcard.domain)
                delay = _FIRST_DELAY


def _check_files(https: Https) -> None:
    if https.acme_root and not os.access(https.acme_root, os.R_OK):
        raise InvalidError(f"The file {https.acme_root} cannot be read.", hint="--acme-root names a PEM file.")
    if https.dns_hook and find_spec("acme") is None:
        raise InvalidError("--dns-hook needs the package acme.", hint="Install it next to Portico: pip install acme")
    if https.dns_hook and shutil.which(https.dns_command[0]) is None:
        raise InvalidError(
            f"The DNS hook is no program: {https.dns_command[0]!r}.", hint="--dns-hook names a command that can be run."
        )


def describe_caddy(https: Https) -> str:
    """The version and path of the Caddy that would be run; InvalidError where none would do."""
    path = find_caddy(https.caddy)
    return f"{'.'.join(map(str, caddy_version(path)))} ({path})"


def caddy_folder(home: Path) -> Path:
    """Where Caddy keeps its certificates and accounts."""
    return home / "https" / "caddy"


def local_authority(settings: Settings) -> Path | None:
    """The root certificate that visitors have to know, where it is Caddy's own; None where it is a public one."""
    if settings.https is None or not is_local(settings.domain):
        return None
    return caddy_folder(settings.home) / "pki" / "authorities" / "local" / "root.crt"
