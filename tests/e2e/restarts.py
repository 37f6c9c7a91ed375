"""`python -m tests.e2e.restarts [ROUNDS] [SEED]`: kill the server during deploys, at random moments, again and again.

Each round leaves the old or the new version, answering, and a whole database.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.conftest import Machine
from tests.e2e.test_rollout import cut_power


def main() -> None:
    """100 rounds, if nothing else is said; an AssertionError tells of the first that went wrong."""
    rounds, seed = (int(given) for given in (*sys.argv[1:3], *("100", "7")[len(sys.argv) - 1 :]))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="portico-restarts-", ignore_cleanup_errors=True) as folder:
        machine = Machine(Path(folder))
        try:
            cut_power(machine, rounds, seed=seed)
        finally:
            machine.close()
    print(f"{rounds} rounds in {time.monotonic() - began:.0f} s: each left the old or the new version.")


if __name__ == "__main__":
    main()
