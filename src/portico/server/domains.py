"""The registered custom domains, on the control plane's loop; the data path knows their names, and leads them."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address
from typing import Final

import psutil

from portico.core.domains import covering, judge
from portico.core.routes import Owner
from portico.model.addresses import PublicAddress
from portico.model.errors import ConflictError, NotFoundError
from portico.model.ports import DomainRecord, Store
from portico.model.settings import Settings
from portico.model.spec import AppSpec
from portico.server.dataplane import Bridge, DataPlane
from portico.server.dns import Dns
from portico.wire.control import DnsRecord, DomainCheck, DomainInfo, DomainList, DomainUse
from portico.wire.domains import check_foreign, domain_name, shell_word

_LOCAL: Final = ("localhost", ".localhost")  # domains of servers that nobody reaches from elsewhere

Changed = Callable[[str], Awaitable[None]]  # a registration, by its name


class Domains:
    """Implements `api.services.DomainService`; says what deploys may have, and keeps the news of certificates.

    All changes pass through here, so what was read once stays true.
    """

    def __init__(
        self, settings: Settings, *, store: Callable[[], Awaitable[Store]], data: DataPlane, bridge: Bridge
    ) -> None:
        self._settings = settings
        self._store = store
        self._data = data
        self._bridge = bridge
        self._dns = Dns(settings.name_server)
        self._known: dict[str, DomainRecord] | None = None
        self._loading = asyncio.Lock()
        self._order = asyncio.Lock()  # what is stored last is what the data path hears last
        self.on_added: Changed = _nobody_minds
        self.on_removed: Changed = _nobody_minds

    async def known(self) -> dict[str, DomainRecord]:
        """Those that are registered, by name; the data path has heard of them. To be asked before an app comes up."""
        async with self._loading:
            if self._known is None:
                known = {record.name: record for record in await (await self._store()).domains.all()}
                await self._tell(known)
                self._known = known
            return self._known

    # -- for deploys ----------------------------------------------------------------------------------------------
    async def check(self, spec: AppSpec) -> None:
        """InvalidError or NotFoundError where a deployed app cannot have a domain that it names."""
        for name in spec.domains:
            check_foreign(name, self._settings.domain)
        missing = await self.unregistered(spec)
        if missing:
            what = f"The domain {missing[0]} is" if len(missing) == 1 else f"The domains {', '.join(missing)} are"
            commands = " && ".join(f"portico domain add {shell_word(name)}" for name in missing)
            raise NotFoundError(f"{what} not registered.", hint=f"Register first: {commands}")

    async def unregistered(self, spec: AppSpec) -> list[str]:
        """The domains that it names and that no registration covers."""
        known = await self.known()
        return [name for name in spec.domains if covering(name, known) is None]

    async def registered(self, spec: AppSpec) -> list[str]:
        """Those that one covers."""
        known = await self.known()
        return [name for name in spec.domains if covering(name, known) is not None]

    # -- for the control API --------------------------------------------------------------------------------------
    async def domains(self) -> DomainList:
        """All that are registered, by name."""
        known, uses = await self.known(), await self._uses()
        return DomainList([_info(record, uses) for _, record in sorted(known.items())])

    async def add_domain(self, text: str, token: str | None) -> DomainInfo:
        """Register it, on behalf of this token or of the machine's user; one that is registered stays as it is."""
        name = check_foreign(domain_name(text), self._settings.domain)
        known, store = await self.known(), await self._store()
        async with self._order:
            if name not in known:
                by = _user() if token is None else f"token {token}"
                record = DomainRecord(name=name, created_at=time.time(), created_by=by)
                await store.domains.add(record)
                known[name] = record
                await self._tell(known)
            record = known[name]
            await self.on_added(name)
        return _info(record, await self._uses())

    async def remove_domain(self, text: str, *, force: bool) -> DomainInfo:
        """Register it no longer. ConflictError where an app uses it; with `force`, the app loses it at once."""
        name = domain_name(text)
        known, store = await self.known(), await self._store()
        async with self._order:
            info = _info(_found(known, name), await self._uses())
            others = known.keys() - {name}
            lost = [use for use in info.used_by if covering(use.domain, others) is None]
            if lost and not force:
                users = ", ".join(dict.fromkeys(_said(use) for use in lost))
                raise ConflictError(
                    f"The domain {name} is used by {users}.",
                    hint="Take it out of the app and deploy again, stop the app, or pass --force.",
                )
            await store.domains.remove(name)
            del known[name]
            await self._tell(known)
            await self.on_removed(name)
        return info

    async def check_domain(self, text: str) -> DomainCheck:
        """The DNS records that it needs, and what DNS says now."""
        name = _found(await self.known(), domain_name(text)).name
        asked = f"portico-{secrets.token_hex(4)}.{name[2:]}" if name.startswith("*.") else name
        public = self._public()
        answer, *ours = await asyncio.gather(
            self._dns.addresses(asked), *(self._dns.addresses(name) for name in public.names)
        )
        local = await asyncio.to_thread(_local_addresses)
        addresses = frozenset().union(public.addresses, *(found.addresses for found in ours))
        verdict, message = judge(name, answer, addresses, local)
        if public.names and not addresses:
            message += f" DNS knows no address of {', '.join(public.names)}, where this server is said to be."
        return DomainCheck(
            name=name,
            verdict=verdict.value,
            message=message,
            addresses=sorted(answer.addresses),
            records=_records(name, public, addresses or frozenset(filter(_is_global, local))),
        )

    # -- for certificates -----------------------------------------------------------------------------------------
    async def set_certificate(self, host: str, state: str, detail: str | None) -> None:
        """The last news of a certificate for this host; kept with the registration that covers it, if there is one."""
        known = await self.known()
        async with self._order:
            name = covering(host, known)
            if name is None:
                return
            now = time.time()
            await (await self._store()).domains.set_certificate(name, state, detail, now)
            known[name] = replace(known[name], certificate_state=state, certificate_detail=detail, certificate_at=now)

    # -- inside ---------------------------------------------------------------------------------------------------
    async def _tell(self, known: dict[str, DomainRecord]) -> None:
        await self._bridge.call(self._data.set_domains, list(known))

    async def _uses(self) -> dict[str, list[DomainUse]]:
        """By registration: the names that it covers and that lead to apps."""
        known = await self.known()
        uses: dict[str, list[DomainUse]] = {}
        for name, owner in (await self._bridge.call(self._data.domain_holders)).items():
            uses.setdefault(covering(name, known) or name, []).append(_use(name, owner))
        return uses

    def _public(self) -> PublicAddress:
        """Where the internet reaches us: what was said, or else where our URLs are, if others know our domain."""
        said, own = self._settings.public, self._settings.domain
        if said != PublicAddress() or own == _LOCAL[0] or own.endswith(_LOCAL[1]):
            return said
        return PublicAddress(names=(f"{self._settings.workspace}.{own}",))


async def _nobody_minds(name: str) -> None:
    """Without HTTPS, certificates do not have to follow."""


def _found(known: dict[str, DomainRecord], name: str) -> DomainRecord:
    if name not in known:
        raise NotFoundError(f"The domain {name} is not registered.", hint="See `portico domain list`.")
    return known[name]


def _records(name: str, public: PublicAddress, addresses: frozenset[str]) -> list[DnsRecord]:
    """Either one of the CNAMEs, or all of the others."""
    aliases = [DnsRecord(type="CNAME", name=name, value=target) for target in public.names]
    direct = [DnsRecord(type=_kind(address), name=name, value=address) for address in sorted(addresses)]
    return [*aliases, *direct]


def _kind(address: str) -> str:
    return "AAAA" if ":" in address else "A"


def _local_addresses() -> frozenset[str]:
    """The addresses of this machine, without those that mean each machine itself."""
    found = (address.address for addresses in psutil.net_if_addrs().values() for address in addresses)
    return frozenset(text for text in found if _is_reachable(text))


def _is_reachable(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False  # a hardware address, or one with a zone, which is for one link only
    return not (address.is_loopback or address.is_link_local)


def _is_global(text: str) -> bool:
    return ip_address(text).is_global


def _use(name: str, owner: Owner) -> DomainUse:
    state = "ephemeral" if owner.ephemeral else "deployed"
    return DomainUse(domain=name, app=owner.app_name, environment=owner.environment, state=state)


def _said(use: DomainUse) -> str:
    return str(Owner("", use.app, use.environment))


def _info(record: DomainRecord, uses: dict[str, list[DomainUse]]) -> DomainInfo:
    return DomainInfo(
        name=record.name,
        created_at=record.created_at,
        created_by=record.created_by,
        used_by=uses.get(record.name, []),
        certificate_state=record.certificate_state,
        certificate_detail=record.certificate_detail,
        certificate_at=record.certificate_at,
    )


def _user() -> str:
    """Whom this server's own socket is open to."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())
