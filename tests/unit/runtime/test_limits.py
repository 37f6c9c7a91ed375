"""What a process of a user who is not root may take, once it has limited itself."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORKS = """
import os, resource, signal, sys
from portico.runtime import limits

resource.setrlimit(resource.RLIMIT_NPROC, (30, 30))
os.setresuid(41217, 41217, 41217)
limits.limit_processes()
pids = []
try:
    while len(pids) < 100:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
except BlockingIOError as error:
    print(len(pids), error)
finally:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user of its own for the count")
def test_who_is_not_root_gets_no_more_processes_than_the_limit() -> None:
    """Also where it was lower before."""
    done = subprocess.run([sys.executable, "-c", FORKS], capture_output=True, text=True, check=True)
    assert done.stdout == "29 [Errno 11] Resource temporarily unavailable\n"
