"""A container whose inputs go to a program of the user's own, which listens on a port.

The container is its *keeper*: it has the lifeline, and runs nothing of the user's. Its first child runs the function,
and lives for as long as the container does; whatever that starts is below it. The keeper answers the children's calls
to `bind`, `listen` and `connect` (`ports.py`), and so knows at once when the program listens, and where.

Where the kernel does not let it, the program has the port of the machine, which is then no other container's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from portico.model.errors import InvalidError
from portico.model.spec import WebSpec
from portico.runtime import listening, seccomp
from portico.runtime.lifeline import Lifeline
from portico.runtime.ports import Listener, Ports
from portico.wire import container as wire

_FAILED: Final = 1  # exit status
_DEFAULT_GRACE: Final = 30.0  # seconds, for a SIGTERM
_LOOK_EVERY: Final = 0.02  # seconds, while a program starts whose calls we do not see
_FILTERED, _UNFILTERED, _STARTED = b"filtered", b"unfiltered", b"started"  # what the child says

Load = Callable[[], Callable[[], Any]]  # imports the user's file, gives the function


class PortTakenError(InvalidError):
    """A port of the machine's that the program needs is somebody else's."""

    def __init__(self, port: int, holder: str, why: str) -> None:
        super().__init__(f"Port {port} is taken by {holder}; {why}.")
        self.port = port


def run(web: WebSpec, lifeline: Lifeline, load: Load) -> int:
    """Keep the program that the function starts; the exit status. Returns twice, once in each process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        return _be_child(web, theirs, load)
    theirs.close()
    loop = asyncio.new_event_loop()  # uvloop's keeps SIGCHLD for itself
    asyncio.set_event_loop(loop)
    return loop.run_until_complete(_Keeper(web, lifeline, child, ours).run())


# -- the child --------------------------------------------------------------------------------------------------------
def _be_child(web: WebSpec, channel: socket.socket, load: Load) -> int:
    """Call the function, then wait for the end. Raises what the function raises."""
    signal.signal(signal.SIGTERM, _leave)
    try:
        descriptor = seccomp.install()
    except OSError as error:
        channel.send(_UNFILTERED + str(error.errno).encode())
    else:
        socket.send_fds(channel, [_FILTERED], [descriptor])
        os.close(descriptor)
    obstacle = int(channel.recv(16))
    assert web.port is not None
    claim = _claim(web.port, os.strerror(obstacle)) if obstacle else None
    load()()
    channel.send(_STARTED)
    gc.enable()  # the template turned it off
    with contextlib.suppress(SystemExit):
        channel.recv(1)  # the keeper says nothing: this is its end
    del claim
    return 0


def _claim(port: int, obstacle: str) -> socket.socket:
    """Take the machine's own port, as far as containers are concerned, until what is returned is closed."""
    why = f"the kernel gives containers no ports of their own: {obstacle}"
    for inode in listening.listeners(port):
        raise PortTakenError(port, listening.title(listening.holder(inode)), why)
    lock = socket.socket(socket.AF_UNIX)
    try:
        lock.bind(f"\0portico-port-{port}")
    except OSError:
        raise PortTakenError(port, "another container", why) from None
    return lock


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(0)


# -- the keeper -------------------------------------------------------------------------------------------------------
class _Keeper:
    def __init__(self, web: WebSpec, lifeline: Lifeline, child: int, channel: socket.socket) -> None:
        assert web.port is not None
        self._port = web.port
        self._patience = web.startup_timeout
        self._lifeline = lifeline
        self._child = child
        self._channel = channel
        self._started = False  # the function has returned
        self._ready = False
        self._stopping = False
        self._listeners: list[Listener] = []  # all there were while it started; then those that are served
        self._timer: asyncio.TimerHandle | None = None
        self._watched: int | None = None  # a pidfd

    async def run(self) -> int:
        """Until the program has ended, or is told to."""
        self._loop = asyncio.get_running_loop()
        self._end: asyncio.Future[int] = self._loop.create_future()
        self._loop.add_signal_handler(signal.SIGCHLD, self._reap)
        self._loop.add_signal_handler(signal.SIGTERM, self._stop, _DEFAULT_GRACE)
        self._loop.add_reader(self._channel.fileno(), self._hear)
        self._reap()  # whatever ended before there was somebody to hear of it
        return await self._end

    def _hear(self) -> None:
        """What the child says. When it has become another program, by exec, its function will not return any more."""
        message, descriptors, _, _ = socket.recv_fds(self._channel, 16, 1)
        if message == _FILTERED:
            self._ports = Ports(descriptors[0], self._port, self._listens)
            self._tell(seccomp.obstacle(self._child))
        elif message.startswith(_UNFILTERED):
            self._tell(int(message.removeprefix(_UNFILTERED)))
        else:
            self._started = True
            self._loop.remove_reader(self._channel.fileno())
            self._timer = self._loop.call_later(self._patience, self._give_up)
            self._serve()

    def _tell(self, obstacle: int) -> None:
        """Say which error (an errno) keeps the program from having ports of its own; 0: it has them."""
        with contextlib.suppress(OSError):  # it has gone already
            self._channel.send(str(obstacle).encode())
        if obstacle:
            self._look()

    # -- its start ------------------------------------------------------------------------------------------------
    def _listens(self, listener: Listener) -> None:
        if not self._ready:
            self._listeners.append(listener)
            self._serve()
        elif listener.address == self._listeners[0].address:
            self._listeners.append(listener)

    def _look(self) -> None:
        """Whether the program listens on the machine's port by now."""
        for inode, is_public in listening.listeners(self._port).items():
            self._listeners = [Listener(self._port, inode, f"127.0.0.1:{self._port}", is_public)]
            self._serve()
        if not self._ready and not self._end.done():
            self._loop.call_later(_LOOK_EVERY, self._look)

    def _serve(self) -> None:
        """Say that it is ready, if it is."""
        public = [each for each in self._listeners if each.is_public and each.port == self._port]
        if self._ready or not self._started or not public:
            return
        self._ready = True
        if self._timer is not None:
            self._timer.cancel()
        address = public[0].address
        self._listeners = [each for each in public if each.address == address]
        self._lifeline.listen(self._obey)
        self._lifeline.send(wire.Ready(address))
        self._watch()

    def _give_up(self) -> None:
        others = ", ".join(sorted({_name(each) for each in self._listeners})) or "no port"
        message = (
            f"Waited too long for port {self._port} to start accepting connections. Make sure the web server is bound "
            "to 0.0.0.0 (rather than localhost or 127.0.0.1), or adjust `startup_timeout`."
        )
        self._lifeline.fail(f"TimeoutError: {message}", f"After {self._patience:g} s it listens on {others}.")
        self._finish(_FAILED)

    # -- its end --------------------------------------------------------------------------------------------------
    def _watch(self) -> None:
        """Have the kernel say when a process that has a listening socket ends; then look for another one."""
        if self._watched is not None:
            self._loop.remove_reader(self._watched)
            os.close(self._watched)
            self._watched = None
        while self._listeners:
            pid = listening.holder(self._listeners[0].inode)
            if pid is None:
                del self._listeners[0]
                continue
            with contextlib.suppress(ProcessLookupError):
                self._watched = os.pidfd_open(pid)
                self._loop.add_reader(self._watched, self._watch)
                return
        if not self._stopping:
            self._say(f"Nothing listens on port {self._port} any more.")
            self._finish(_FAILED)

    def _obey(self, message: wire.Cancel | wire.Stop) -> None:
        if isinstance(message, wire.Cancel):
            self._lifeline.send(wire.Done(message.input_id))  # all that the program is told is the connection's end
        else:
            self._stop(message.grace)

    def _stop(self, grace: float) -> None:
        if self._stopping:
            return
        self._stopping = True
        self._loop.call_later(max(grace - 1.0, grace / 2), self._finish, 0)
        for pid in _below(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        self._reap()

    def _reap(self) -> None:
        """Children that have ended, and what they have left behind."""
        try:
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == self._child:
                    self._child_gone(os.waitstatus_to_exitcode(ended[1]))
        except ChildProcessError:
            if self._stopping:
                self._finish(0)

    def _child_gone(self, code: int) -> None:
        if not self._stopping:
            if self._ready:
                self._say("The process that started the program has ended.")
            self._finish(code if code > 0 else _FAILED)

    def _finish(self, status: int) -> None:
        if not self._end.done():
            self._end.set_result(status)

    def _say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")


def _name(listener: Listener) -> str:
    return f"port {listener.port}" if listener.is_public else f"127.0.0.1:{listener.port}"


def _below(pid: int) -> list[int]:
    """All processes below this one."""
    found: list[int] = []
    with contextlib.suppress(OSError):  # it has gone meanwhile
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                found += [int(word) for word in file.read().split()]
    return found + [each for child in found for each in _below(child)]
