"""`/v1/settings` and `/v1/proxy-tokens`: who may call endpoints, and how much."""

from __future__ import annotations

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import Documented, Operation, document, read_document, route
from portico.api.services import AdmissionService
from portico.wire.control import NewProxyToken, ProxyTokenList, ProxyTokenRequest, SettingInfo, SettingList

_setting = msgspec.json.Decoder(SettingInfo)
_token = msgspec.json.Decoder(ProxyTokenRequest)


def routes(admission: AdmissionService) -> list[Documented]:
    """What can be asked of them."""

    async def settings(_: Request) -> Response:
        return document(await admission.settings())

    async def change(request: Request) -> Response:
        return document(await admission.change_setting(await read_document(request, _setting)))

    async def tokens(_: Request) -> Response:
        return document(await admission.proxy_tokens())

    async def create(request: Request) -> Response:
        return document(await admission.create_proxy_token(await read_document(request, _token)), 201)

    async def revoke(request: Request) -> Response:
        await admission.revoke_proxy_token(request.path_params["token_id"])
        return Response(status_code=204)

    return [
        route("GET", "/v1/settings", settings, Operation(gives=SettingList)),
        route("PUT", "/v1/settings", change, Operation(SettingInfo, SettingList)),
        route("GET", "/v1/proxy-tokens", tokens, Operation(gives=ProxyTokenList)),
        route("POST", "/v1/proxy-tokens", create, Operation(ProxyTokenRequest, NewProxyToken, 201)),
        route("DELETE", "/v1/proxy-tokens/{token_id}", revoke, Operation(status=204)),
    ]
