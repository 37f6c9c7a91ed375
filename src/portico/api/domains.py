"""`/v1/domains`: custom domains that apps may have."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import Documented, Operation, document, read_document, route, token_of
from portico.api.services import DomainService
from portico.wire.control import DomainCheck, DomainInfo, DomainList, NewDomain

_new = msgspec.json.Decoder(NewDomain)


def routes(domains: DomainService) -> list[Documented]:
    """What can be asked of them."""

    async def everything(_: Request) -> Response:
        return document(await domains.domains())

    async def add(request: Request) -> Response:
        wanted = await read_document(request, _new)
        return document(await domains.add_domain(wanted.name, token_of(request)))

    async def check(request: Request) -> Response:
        return document(await domains.check_domain(request.path_params["name"]))

    async def remove(request: Request) -> Response:
        force = request.query_params.get("force") == "1"
        return document(await domains.remove_domain(request.path_params["name"], force=force))

    return [
        route("GET", "/v1/domains", everything, Operation(gives=DomainList)),
        route("POST", "/v1/domains", add, Operation(NewDomain, DomainInfo)),
        route("GET", "/v1/domains/{name}/check", check, Operation(gives=DomainCheck)),
        route("DELETE", "/v1/domains/{name}", remove, Operation(gives=DomainInfo, query=("force",))),
    ]
