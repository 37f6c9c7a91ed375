"""What the command line says to the reader, the warm process that reads a user's file in a fork, and its answer.

Over the reader's stdin and stdout, one JSON document a line.
"""

from __future__ import annotations

import msgspec

from portico.model.spec import AppSpec


class ReadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Read this reference: `file.py`, `file.py::app`, or with `module` `pkg.mod` and `pkg.mod::app`.

    `cwd` is where relative paths begin. `name` is `--name`.
    """

    ref: str
    module: bool = False
    cwd: str
    name: str | None = None


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter of something that can be run. kind: "str", "int", "float", "bool" or "datetime"."""

    name: str
    kind: str
    required: bool = False
    default: str = ""  # as it is shown


class Runnable(msgspec.Struct, frozen=True, kw_only=True):
    """What `portico run` can begin with: a local entrypoint, or a function.

    raw: it takes the words of the command line as they are. problem: why its parameters are no options.
    """

    name: str
    entrypoint: bool
    web: bool = False
    raw: bool = False
    parameters: list[Parameter] = []
    problem: str | None = None
    doc: str = ""


class ReadReply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it: `spec` and the rest, or `error`.

    sources: place in the bundle -> absolute local path. watch: folders and files whose change may change the app.
    error: the message; error_kind: "usage" (no such file, no app, two apps: exit 2 or 1) or "user" (the user's code
    raised); error_hint; traceback: the user's frames only; error_file: the file that is at fault, if known.
    output: what the user's code printed while it was read. runnables: what the app has to run.
    """

    spec: AppSpec | None = None
    sources: dict[str, str] = {}
    watch: list[str] = []
    output: str = ""
    runnables: list[Runnable] = []
    error: str | None = None
    error_kind: str = ""
    error_hint: str | None = None
    error_file: str | None = None
    traceback: str | None = None


_request = msgspec.json.Decoder(ReadRequest)
_reply = msgspec.json.Decoder(ReadReply)


def encode(message: ReadRequest | ReadReply) -> bytes:
    """One line, with its newline."""
    return msgspec.json.encode(message) + b"\n"


def request(line: bytes) -> ReadRequest:
    """What the command line asked."""
    return _request.decode(line)


def reply(line: bytes) -> ReadReply:
    """What the reader answered."""
    return _reply.decode(line)
