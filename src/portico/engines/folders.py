"""The folders that containers make for themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from portico.wire.container import OVER


def remove_folder(folder: str) -> None:
    """Remove one, whose container is gone, as far as that can be."""
    with contextlib.suppress(OSError):  # the kernel has made it for itself, and nobody may look into it
        os.chmod(f"{folder}/{OVER}work/work", 0o700)
    shutil.rmtree(folder, ignore_errors=True)


def remove_folders(parent: Path) -> None:
    """Remove all, with the folder that they are in: no container is left."""
    for folder in parent.glob("*"):
        remove_folder(str(folder))
    shutil.rmtree(parent, ignore_errors=True)
