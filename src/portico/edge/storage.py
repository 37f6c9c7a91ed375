"""What Caddy has stored: a folder for each certificate, below one for each authority."""

from __future__ import annotations

import shutil
from pathlib import Path


def hosts_below(storage: Path, domain: str) -> list[str]:
    """The hosts with a stored certificate that this domain stands for: itself, or, as a wildcard, one label more."""
    hosts = {folder.name for folder in storage.glob("certificates/*/*")}
    if not domain.startswith("*."):
        return [domain] if domain in hosts else []
    return sorted(host for host in hosts if host.partition(".")[2] == domain[2:])


def forget(storage: Path, host: str) -> None:
    """Remove the certificates of a host, and their keys."""
    for folder in storage.glob(f"certificates/*/{host}"):
        shutil.rmtree(folder, ignore_errors=True)
