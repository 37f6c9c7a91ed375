"""What the server, the processes that containers are forked from, and the containers say to each other.

These processes are *fork servers*: an image's template, and the snapshot of a function, which is itself a fork of the
template and speaks over its lifeline. All speak over SOCK_SEQPACKET socket pairs: one packet is one message, so there
is no framing to get wrong. A packet has at most `MAX_PACKET` bytes. The end of the stream means that the other side is
gone.
"""

from __future__ import annotations

import msgspec

from portico.model.spec import EntrySpec, FunctionSpec

MAX_PACKET = 64 * 1024
# ingress -> container, always the first header of a request: "<input id> <client's address> <its port> <scheme>",
# and OFFER behind it where the container will be handed the client's connection if it accepts a WebSocket
INPUT_HEADER = b"x-portico-input"
OFFER = b"over"
OVER = "bundle-"  # how the names of the folders begin in which a container has what it wrote over its bundle
HELD_HEADER = b"x-portico-held"  # container -> ingress: the slot is given back by `Done`, not by the response's end


class View(msgspec.Struct, frozen=True, kw_only=True):
    """What a container sees of the machine. All are absolute paths.

    folder: its own, which it makes, with a folder `tmp` in it. hidden: folders that it sees empty, but for what is
    shown. shown: what it needs, wherever that is. blank: files that it sees empty.
    """

    folder: str
    hidden: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    blank: tuple[str, ...] = ()
    temporary: str = ""


class Group(msgspec.Struct, frozen=True):
    """A control group that a container makes and joins. A setting behind "?" is left out where the kernel lacks it."""

    folder: str
    settings: dict[str, str]


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """Server -> container, as JSON in a memory file handed over with the fork request: any size, on no disk."""

    container_id: str
    snapshot: bool = False  # load the user's code, serve nothing, be forked
    app_id: str
    app_name: str
    function: FunctionSpec
    parameters: str | None = ""  # the canonical text of a class's parameters; None: load the class, make no instance
    entry: EntrySpec
    bundle_dir: str
    workdir: str
    socket_path: str
    view: View
    groups: tuple[Group, ...] = ()
    data_limit: int | None = None  # MiB; where no group limits its memory
    env: dict[str, str]  # the whole environment of the process
    urls: dict[str, str]

    def __repr__(self) -> str:
        return f"Launch({self.container_id})"  # the rest has secrets in it


# -- server <-> fork server --------------------------------------------------------------------------------------
class Fork(msgspec.Struct, frozen=True, tag="fork"):
    """Server -> fork server, with five descriptors: lifeline's far end, tether, stdout, stderr, and the Launch file.

    The tether is the read end of a pipe that only the server can write to, and never does: the kernel kills the
    container's process group when the other end closes. snapshot: what is forked is one.
    """

    container_id: str
    snapshot: bool = False


class Spare(msgspec.Struct, frozen=True, tag="spare"):
    """Server -> template, in answer to `Reaped` of a snapshot: these are containers that it has left behind.

    Until this comes, the template reaps nothing: no process id of theirs can become another process's.
    """

    snapshot_id: str
    pids: tuple[int, ...]


class Warmed(msgspec.Struct, frozen=True, tag="warmed"):
    """Template -> server: imports are done, forks are quick from now on.

    obstacle: the errno that says why its containers have no view of their own; 0: they have.
    """

    obstacle: int = 0


class Forked(msgspec.Struct, frozen=True, tag="forked"):
    """Fork server -> server: the container's process is there."""

    container_id: str
    pid: int


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Fork server -> server: the system gave it no process for the container."""

    container_id: str
    reason: str


class Reaped(msgspec.Struct, frozen=True, tag="reaped"):
    """Fork server -> server: the container's process has ended; `status` as of waitpid. snapshot: it was one."""

    container_id: str
    pid: int
    status: int
    snapshot: bool = False


class Unfit(msgspec.Struct, frozen=True, tag="unfit"):
    """Snapshot -> server: it cannot be forked. Its containers have to do without it."""


# -- server <-> container, over its lifeline ---------------------------------------------------------------------
class Cancel(msgspec.Struct, frozen=True, tag="cancel"):
    """Server -> container: end this input. Always answered with Done, sooner or later."""

    input_id: str


class HandOver(msgspec.Struct, frozen=True, tag="handover"):
    """Server -> container, with one descriptor: the client's connection, for a WebSocket that it has accepted.

    head: the answer to the handshake, as the client is to get it. Whatever the client has sent before comes on the
    connection of the request, to its end; what follows, on this one. Answered with Done when the input ends.
    """

    input_id: str
    head: bytes


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Server -> container: finish, run the exit handlers, exit."""

    grace: float


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Container -> server: it listens on its socket, or on this "host:port". A snapshot: it can be forked."""

    address: str | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """Container -> server: it cannot become ready. `cause` is one line; `detail` a traceback, cut to fit a packet.

    killed: its template was, while the container needed it. taken: a port that it could not have, or 0; the server
    sees more than a container, and may say who has it.
    """

    cause: str
    detail: str = ""
    killed: bool = False
    taken: int = 0


class Done(msgspec.Struct, frozen=True, tag="done"):
    """Container -> server: this input has ended (answers Cancel, and responses marked with HELD_HEADER)."""

    input_id: str


_encode = msgspec.json.Encoder().encode
_from_template: msgspec.json.Decoder[Warmed | Forked | Refused | Reaped] = msgspec.json.Decoder(
    Warmed | Forked | Refused | Reaped
)
_from_snapshot: msgspec.json.Decoder[Ready | Failed | Unfit | Forked | Refused | Reaped] = msgspec.json.Decoder(
    Ready | Failed | Unfit | Forked | Refused | Reaped
)
_from_container: msgspec.json.Decoder[Ready | Failed | Done] = msgspec.json.Decoder(Ready | Failed | Done)
_to_container: msgspec.json.Decoder[Cancel | HandOver | Stop] = msgspec.json.Decoder(Cancel | HandOver | Stop)
_launch = msgspec.json.Decoder(Launch)
_to_fork_server: msgspec.json.Decoder[Fork | Spare] = msgspec.json.Decoder(Fork | Spare)


def encode(message: msgspec.Struct) -> bytes:
    """One packet."""
    return _encode(message)


def from_template(packet: bytes) -> Warmed | Forked | Refused | Reaped:
    """What a template said."""
    return _from_template.decode(packet)


def from_snapshot(packet: bytes) -> Ready | Failed | Unfit | Forked | Refused | Reaped:
    """What a snapshot said over its lifeline."""
    return _from_snapshot.decode(packet)


def from_container(packet: bytes) -> Ready | Failed | Done:
    """What a container said."""
    return _from_container.decode(packet)


def to_container(packet: bytes) -> Cancel | HandOver | Stop:
    """What the server said to a container."""
    return _to_container.decode(packet)


def to_fork_server(packet: bytes) -> Fork | Spare:
    """What the server said to a template or a snapshot."""
    return _to_fork_server.decode(packet)


def launch(data: bytes) -> Launch:
    """The content of the Launch memory file."""
    return _launch.decode(data)
