"""What DNS says of a name, asked over the network; the only place that knows dnspython."""

from __future__ import annotations

import asyncio
import importlib
from typing import Any, Final

from portico.core.domains import Answer

PATIENCE: Final = 5.0  # seconds


class Dns:
    """Asks the machine's name servers, or the one at `server` ("127.0.0.1:53"). Hosts files do not count.

    Names are asked for as they stand, without search domains. patience: seconds for all questions about one name.
    """

    def __init__(self, server: tuple[str, int] | None = None, patience: float = PATIENCE) -> None:
        self._server = server
        self._patience = patience

    async def addresses(self, name: str) -> Answer:
        """Where a name leads."""
        # a quarter of a second to import, for the few who have custom domains
        resolving = await asyncio.to_thread(importlib.import_module, "dns.asyncresolver")
        errors = importlib.import_module("dns.exception")
        try:
            resolver = resolving.Resolver(configure=self._server is None)
            if self._server is not None:
                resolver.nameservers, resolver.port = [self._server[0]], self._server[1]
            resolver.lifetime = self._patience
            answers = await asyncio.gather(
                *(resolver.resolve(f"{name}.", kind, raise_on_no_answer=False) for kind in ("A", "AAAA"))
            )
        except resolving.NXDOMAIN:
            return Answer()
        except errors.Timeout:
            return Answer(failure=f"no answer within {self._patience:g} seconds")
        except errors.DNSException as error:
            return Answer(failure=f"{error}".partition("\n")[0].rstrip(".") or type(error).__name__)
        found = frozenset(str(record.address) for answer in answers for record in answer.rrset or ())
        return Answer(found, _alias(name, answers[0]) if found else None)


def _alias(name: str, answer: Any) -> str | None:
    canonical = str(answer.canonical_name).rstrip(".").lower()
    return None if canonical == name else canonical
