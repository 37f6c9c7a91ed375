"""The template process of an image: everything imported and warmed, ready to be forked into containers."""

from __future__ import annotations

import functools
import gc
import socket
import sys
from typing import NoReturn

from portico.runtime import confine, container, isolate, warmth
from portico.runtime.forkserver import ForkServer
from portico.sdk import alias
from portico.wire import container as wire


def main(descriptor: int) -> NoReturn:
    """Warm up and serve fork requests from this socket until its other end closes."""
    gc.disable()
    isolate.become_reaper()
    isolate.give_way()
    isolate.keep_freed_memory()
    obstacle = confine.obstacle()
    begin = functools.partial(container.main, programs=confine.programs())
    server = ForkServer(socket.socket(fileno=descriptor), begin, isolated=not obstacle)
    alias.install()
    warmth.generate()
    gc.collect()
    gc.freeze()  # what is there now is shared with the containers; a collection would touch, and so copy, it
    server.run(wire.Warmed(obstacle))
    sys.exit(0)
