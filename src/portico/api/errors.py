"""Errors on the wire: the one place where an exception becomes a status and a `Problem`."""

from __future__ import annotations

import logging
import secrets

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from portico.model import errors
from portico.wire.control import Problem

_log = logging.getLogger("portico.api")
_JSON = "application/json"

_STATUS: dict[type[errors.Error], int] = {
    errors.InvalidError: 400,  # and UnsupportedError
    errors.AuthError: 401,
    errors.PermissionDeniedError: 403,
    errors.NotFoundError: 404,
    errors.ConflictError: 409,
    errors.ImageBuildError: 422,
    errors.StartError: 422,
    errors.ResourceExhaustedError: 429,
}


def to_problem(error: Exception) -> tuple[int, Problem]:
    """The status and the document for this error. One that is not ours is logged, and its text withheld."""
    if isinstance(error, HTTPException):
        code = "not_found" if error.status_code == 404 else "invalid"
        return error.status_code, Problem(code=code, message=f"The control API says: {error.detail}.")
    if isinstance(error, errors.Error) and error.code != "internal":
        status = next((_STATUS[cls] for cls in type(error).__mro__ if cls in _STATUS), 500)
        return status, Problem(code=error.code, message=error.message, hint=error.hint, detail=error.detail)
    mark = secrets.token_hex(6)
    _log.error("internal error %s", mark, exc_info=error)
    return 500, Problem(
        code="internal", message=f"Internal error {mark}.", hint="The server's log has its cause under this id."
    )


def respond(error: Exception) -> Response:
    """The answer to a request that failed like this."""
    status, problem = to_problem(error)
    return Response(msgspec.json.encode(problem), status, media_type=_JSON)
