"""The errors of Portico, a small tree; each has a `code` that travels over the wire, and may have a hint.

The public names are those of the API that we re-implement; users find them in `portico.exception`.
"""

from __future__ import annotations

import builtins


class Error(Exception):
    """Base of all of Portico's errors.

    `message` says what happened and where, `hint` what to do about it, `detail` carries longer text
    (a traceback, a build log's end) that is shown below the message.
    """

    code = "internal"
    has_run = True  # of a call that failed: False where its function has certainly not begun

    def __init__(self, message: str = "", *, hint: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.detail = detail


class InvalidError(Error):
    """The user's file or command asks for something that does not make sense."""

    code = "invalid"


class UnsupportedError(InvalidError):
    """A known feature that this server or engine does not offer."""

    code = "unsupported"


class NotFoundError(Error):
    """The named app, function or version does not exist."""

    code = "not_found"


class ConflictError(Error):
    """What was asked for collides with something that exists: a label, a port, a running server."""

    code = "conflict"


class PortInUseError(ConflictError):
    """Another program listens on the port that the server wants."""

    code = "port_in_use"


class HomeInUseError(ConflictError):
    """Another server has the home."""

    code = "home_in_use"


class AuthError(Error):
    """The caller did not say who it is, or may not do this."""

    code = "unauthorized"


class PermissionDeniedError(Error):
    """The caller is known, and may not do this."""

    code = "forbidden"


class ConnectionError(Error):
    """No server could be reached."""

    code = "unreachable"


class ImageBuildError(Error):
    """An image's environment could not be built; `detail` has the tool's own words."""

    code = "image_build_failed"


class StartError(Error):
    """A container did not become ready; `detail` has its traceback. The server knows which one: `container_id`."""

    code = "start_failed"
    container_id: str | None = None


class StateError(Error):
    """The state on disk cannot be used: a broken database, a home without write permission."""

    code = "state"


class ExecutionError(Error):
    """Something was called where it cannot run."""

    code = "execution"


class SerializationError(Error):
    """A value could not be turned into bytes."""

    code = "serialization"


class DeserializationError(Error):
    """Bytes could not be turned back into a value."""

    code = "deserialization"


class RemoteError(Error):
    """The remote side failed."""

    code = "remote"


class InternalFailure(Error):  # noqa: N818 - the public name of the API that we re-implement
    """A fault of Portico itself; its text is in the server's log under the given id."""

    code = "internal"


class CallCancelledError(RemoteError):
    """A call that was cancelled has no result."""

    code = "cancelled"


class InputCancellation(BaseException):
    """There so that files which catch it work. Async functions see a cancellation as `asyncio.CancelledError`."""


class TimeoutError(Error):
    """Base of Portico's own timeouts."""

    code = "timeout"


class FunctionTimeoutError(TimeoutError):
    """An input ran longer than its function's `timeout`."""

    code = "function_timeout"


class OutputExpiredError(TimeoutError):
    """The result of a call is no longer kept."""

    code = "output_expired"


class NotReadyError(TimeoutError, builtins.TimeoutError):
    """The result of a call was not there in time. Python's own TimeoutError, too."""

    code = "not_ready"


class ResourceExhaustedError(Error):
    """A queue or a limit is full; try again later."""

    code = "exhausted"


class DeprecationError(UserWarning):
    """A name of the API that its authors have removed."""


def by_code(code: str, message: str, *, hint: str | None = None, detail: str | None = None) -> Error:
    """The error that `code` names on the wire; an unknown code gives `InternalFailure`."""
    return _BY_CODE.get(code, InternalFailure)(message, hint=hint, detail=detail)


def _leaves(cls: type[Error]) -> list[type[Error]]:
    return [cls, *(leaf for sub in cls.__subclasses__() for leaf in _leaves(sub))]


_BY_CODE: dict[str, type[Error]] = {cls.code: cls for cls in _leaves(Error) if "code" in vars(cls)}
_BY_CODE["internal"] = InternalFailure
