"""One certificate for all names of the server's own domain, by ACME's DNS challenge and a hook that sets TXT records.

The only file that knows `acme` and `josepy`, which it imports when there is something to do.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import os
import re
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from portico.edge.document import Pem
from portico.model.errors import StateError
from portico.model.version import VERSION

log = logging.getLogger("portico.edge")

HOOK_TIMEOUT: Final = 300.0  # seconds for the hook to set or remove a record
_CHECKING: Final = 300.0  # seconds for the authority to look at a record
_PAUSE: Final = 1.0  # seconds between questions to it
_LAST_WORDS: Final = 500  # characters of what a hook printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Wildcard:
    """What is asked for, from whom, and how; `folder` is where certificate and account are kept."""

    domain: str
    authority: str
    root: str
    email: str
    hook: tuple[str, ...]
    dns_wait: float
    folder: Path

    def stored(self) -> Pem | None:
        """The certificate that was issued last; None where it is not there, or cannot be read."""
        with contextlib.suppress(OSError, ValueError):
            pem = Pem(self._chain.read_text(), self._key.read_text())
            renewal_time(pem)
            return pem
        return None

    async def issue(self) -> Pem:
        """A new one, which is stored; StateError when it cannot be had."""
        order = await _Order.begin(self)
        pem = await order.fulfil()
        _write(self._key, pem.key)
        _write(self._chain, pem.chain)
        return pem

    @property
    def account(self) -> Path:
        """The key of the account."""
        return self._place / "account.key"

    @property
    def _chain(self) -> Path:
        return self._place / f"{self.domain}.crt"

    @property
    def _key(self) -> Path:
        return self._place / f"{self.domain}.key"

    @property
    def _place(self) -> Path:
        return self.folder / re.sub(r"[^a-z0-9.]+", "-", self.authority.removeprefix("https://").lower())


def renewal_time(pem: Pem) -> float:
    """When to ask for the next one: after two thirds of its life. Seconds since the epoch."""
    certificate = x509.load_pem_x509_certificate(pem.chain.encode())
    begin, end = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    return end - (end - begin) / 3


class _Order:
    """One certificate on its way: an account's client, and what the authority wants to see."""

    def __init__(self, wanted: Wildcard, client: Any, order: Any, key: str) -> None:
        self._wanted = wanted
        self._client = client
        self._order = order
        self._key = key

    @staticmethod
    async def begin(wanted: Wildcard) -> _Order:
        key = _pem(ec.generate_private_key(ec.SECP256R1()))
        client = await _told(asyncio.to_thread(_client, wanted))
        crypto_util = importlib.import_module("acme.crypto_util")
        csr = crypto_util.make_csr(key.encode(), [wanted.domain, f"*.{wanted.domain}"])
        return _Order(wanted, client, await _told(asyncio.to_thread(client.new_order, csr)), key)

    async def fulfil(self) -> Pem:
        # one after the other: both have their record under the same name, and hooks may replace what is there
        for authorization in self._order.authorizations:
            if authorization.body.status.name != "valid":
                await self._authorize(authorization)
        deadline = datetime.now() + timedelta(seconds=_CHECKING)
        done = await _told(asyncio.to_thread(self._client.finalize_order, self._order, deadline))
        return Pem(done.fullchain_pem, self._key)

    async def _authorize(self, authorization: Any) -> None:
        challenge = next((c for c in authorization.body.challenges if c.chall.typ == "dns-01"), None)
        if challenge is None:
            raise StateError(f"{self._wanted.authority} offers no DNS challenge for *.{self._wanted.domain}.")
        account = self._client.net.key
        record, value = f"_acme-challenge.{self._wanted.domain}.", challenge.chall.validation(account)
        await self._hook("present", record, value)
        try:
            await asyncio.sleep(self._wanted.dns_wait)
            await _told(asyncio.to_thread(self._client.answer_challenge, challenge, challenge.chall.response(account)))
            await self._checked(authorization)
        finally:
            with contextlib.suppress(StateError):  # why it failed before is what matters
                await self._hook("cleanup", record, value)

    async def _checked(self, authorization: Any) -> None:
        until = time.monotonic() + _CHECKING
        while authorization.body.status.name in ("pending", "processing"):
            if time.monotonic() > until:
                raise StateError(f"{self._wanted.authority} has not looked at the record in {_CHECKING:g} s.")
            await asyncio.sleep(_PAUSE)
            authorization, _ = await _told(asyncio.to_thread(self._client.poll, authorization))
        if authorization.body.status.name != "valid":
            errors = [str(c.error.detail) for c in authorization.body.challenges if c.error is not None]
            raise StateError(f"{self._wanted.authority} refuses: {'; '.join(errors) or 'without a reason'}.")

    async def _hook(self, *arguments: str) -> None:
        command = [*self._wanted.hook, *arguments]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
        except OSError as error:
            raise StateError(f"The DNS hook cannot be run: {error}.") from None
        try:
            output, _ = await asyncio.wait_for(process.communicate(), HOOK_TIMEOUT)
        except TimeoutError:
            raise StateError(f"The DNS hook took more than {HOOK_TIMEOUT:g} s: {' '.join(command)}") from None
        finally:
            if process.returncode is None:
                process.kill()
        if process.returncode:
            said = output.decode(errors="replace").strip()[-_LAST_WORDS:]
            log.warning("the DNS hook failed with code %s: %s: %s", process.returncode, " ".join(command), said)
            raise StateError(f"The DNS hook failed with code {process.returncode} ({arguments[0]}): {said}")


def _client(wanted: Wildcard) -> Any:
    """Signed in with our account, which is made if need be."""
    client, errors, messages = map(importlib.import_module, ("acme.client", "acme.errors", "acme.messages"))
    jose = importlib.import_module("josepy")
    net = client.ClientNetwork(
        _account_key(wanted.account, jose),
        alg=jose.ES256,
        verify_ssl=wanted.root or True,
        user_agent=f"portico/{VERSION}",
    )
    directory = client.ClientV2.get_directory(wanted.authority, net)
    acme = client.ClientV2(directory, net)
    email = wanted.email or None
    registration = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=True)
    try:
        acme.new_account(registration)
    except errors.ConflictError as known:
        acme.query_registration(messages.RegistrationResource(uri=known.location, body=messages.Registration()))
    return acme


def _account_key(path: Path, jose: Any) -> Any:
    if not path.exists():
        _write(path, _pem(ec.generate_private_key(ec.SECP256R1())))
    return jose.JWKEC(key=serialization.load_pem_private_key(path.read_bytes(), None))


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


def _write(path: Path, text: str) -> None:
    """For this user only, and whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.new")
    partial.unlink(missing_ok=True)
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


async def _told(step: Awaitable[Any]) -> Any:
    """What comes of a question to the authority; StateError when that is an error."""
    try:
        return await step
    except StateError:
        raise
    except Exception as error:  # two libraries' worth of kinds
        raise StateError(f"The authority did not answer as it should: {error}") from None
