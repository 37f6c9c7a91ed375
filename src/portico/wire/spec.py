"""`AppSpec` and `Bundle` <-> JSON, with a version: an old document is understood or refused, never misread."""

from __future__ import annotations

from typing import Any

import msgspec

from portico.model.errors import InvalidError
from portico.model.spec import AppSpec, Bundle

VERSION = 1


class _Document(msgspec.Struct, frozen=True):
    version: int
    spec: AppSpec
    bundle: Bundle


_decoder = msgspec.json.Decoder(_Document)


def encode(spec: AppSpec, bundle: Bundle) -> bytes:
    """Both as one JSON document."""
    return msgspec.json.encode(_Document(version=VERSION, spec=spec, bundle=bundle))


def decode(data: bytes) -> tuple[AppSpec, Bundle]:
    """The reverse; InvalidError when it is not such a document, or of a newer version."""
    try:
        head: Any = msgspec.json.decode(data)
        if not isinstance(head, dict) or head.get("version") != VERSION:
            raise InvalidError(
                "This app specification was written by another version of Portico.", hint="Deploy the app again."
            )
        document = _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise InvalidError(f"Not an app specification: {error}") from None
    return document.spec, document.bundle
