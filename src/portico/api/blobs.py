"""`/v1/blobs`: the users' files, by content."""

from __future__ import annotations

import re

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from portico.api.http import Documented, Operation, bounded, document, read_document, route
from portico.model.errors import InvalidError
from portico.model.ports import Blobs
from portico.wire.control import BlobList

MAX_BLOB = 4 << 30  # bytes
_DIGEST = re.compile(r"[0-9a-f]{64}")
_list = msgspec.json.Decoder(BlobList)


def routes(blobs: Blobs) -> list[Documented]:
    """What can be asked of the blobs."""

    async def missing(request: Request) -> Response:
        asked = await read_document(request, _list)
        return document(BlobList(await blobs.missing([_checked(digest) for digest in asked.digests])))

    async def put(request: Request) -> Response:
        await blobs.put(_checked(request.path_params["digest"]), bounded(request, MAX_BLOB))
        return Response(status_code=204)

    return [
        route("POST", "/v1/blobs/missing", missing, Operation(BlobList, BlobList)),
        route("PUT", "/v1/blobs/{digest}", put, Operation(bytes, status=204)),
    ]


def _checked(digest: str) -> str:
    if not _DIGEST.fullmatch(digest):
        raise InvalidError(f"Not a SHA-256 in lower-case hex: {digest!r}.")
    return digest
