"""How many descriptors a process of the server may have."""

from __future__ import annotations

import contextlib
import resource
import sys


def allow_many_descriptors() -> int:
    """As many as this user may have; how many clients may then be connected.

    Each takes one. The rest is for containers, five each, for connections to them, and for files.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if allowed == resource.RLIM_INFINITY else max(1, allowed - max(128, allowed // 4))
