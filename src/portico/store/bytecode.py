"""Compiles users' modules ahead of a container's start, for the server's own Python.

The bytecode is not checked against its source when it is loaded (PEP 552, unchecked): both are named by the same
digest, so they cannot differ.
"""

from __future__ import annotations

import importlib.util
import marshal
import sys
import warnings

from portico.model.spec import FileEntry

# Compiling holds the interpreter's lock, and the ingress lives in the same process: larger modules are left to the
# first container that imports them.
LARGEST = 32 * 1024  # bytes of source
MOST = 50  # modules compiled for one bundle
CACHE_TAG = sys.implementation.cache_tag or "none"

_UNCHECKED_HASH = (1).to_bytes(4, "little")


def worth_compiling(entry: FileEntry) -> bool:
    """Whether this file of a bundle is a module of a size that is compiled here."""
    return entry.path.endswith(".py") and 0 < entry.size <= LARGEST


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
