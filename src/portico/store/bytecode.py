"""Compiles users' modules ahead of a container's start, for the server's own Python.

The bytecode is not checked against its source when it is loaded (PEP 552, unchecked): both are named by the same
digest, so they cannot differ. What containers compile themselves goes with them.

As a program: compiles what it reads, under the name that it is given.
"""

from __future__ import annotations

import importlib.util
import marshal
import subprocess
import sys
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the program needs nothing of it, and starts without
    from portico.model.spec import FileEntry

LARGEST = 1024**2  # bytes of source
# Compiling holds the interpreter's lock, and the ingress lives in the same process: larger modules get a process of
# their own.
SHORT = 32 * 1024  # bytes of source
MOST = 50  # modules compiled for one bundle, of which longer ones count for several
LONG = 10  # for how many they count
PATIENCE = 20.0  # seconds
CACHE_TAG = sys.implementation.cache_tag or "none"

_UNCHECKED_HASH = (1).to_bytes(4, "little")


def worth_compiling(entry: FileEntry) -> bool:
    """Whether this file of a bundle is a module of a size that is compiled here."""
    return entry.path.endswith(".py") and 0 < entry.size <= LARGEST


def compile_long_module(source: bytes, name: str) -> bytes | None:
    """As `compile_module`, in a process of its own."""
    command = [sys.executable, "-I", "-S", __file__, name]
    try:
        done = subprocess.run(command, input=source, stdout=subprocess.PIPE, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 and done.stdout else None


def compile_module(source: bytes, name: str) -> bytes | None:
    """The content of the `.pyc`, or None where there is an error or a warning that the container should show."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            code = compile(source, name, "exec", dont_inherit=True, optimize=0)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
    if said:
        return None
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + _UNCHECKED_HASH + digest + marshal.dumps(code)


if __name__ == "__main__":
    sys.stdout.buffer.write(compile_module(sys.stdin.buffer.read(), sys.argv[1]) or b"")
