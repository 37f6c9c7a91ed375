"""The unit file with which systemd runs the server."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from portico.model.settings import Settings

_UNIT = """\
# Made by `portico up --systemd`. As root: put it at /etc/systemd/system/portico.service, then
# systemctl daemon-reload && systemctl enable --now portico

[Unit]
Description=Portico: Python functions as web endpoints
Wants=network-online.target
After=network-online.target

[Service]
User={user}
{environment}
ExecStart={command}
Restart=on-failure
TimeoutStopSec=60
# The server ends its containers itself; what is left after that is killed.
KillMode=mixed
LimitNOFILE=1048576
# the limits of containers are control groups below its own
Delegate=cpu memory pids
UMask=0077

# Containers are processes of this service, so all of this holds for users' code, too.
NoNewPrivileges=yes
CapabilityBoundingSet={capabilities}
AmbientCapabilities={capabilities}
ProtectSystem=strict
{home}
ReadWritePaths={writable}
PrivateTmp={tmp}
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
RestrictSUIDSGID=yes
RestrictRealtime=yes
LockPersonality=yes
RemoveIPC=yes
SystemCallArchitectures=native
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
# what containers are isolated with
RestrictNamespaces=user mnt
# Not set, for good reasons: PrivateDevices= would hide GPUs, MemoryDenyWriteExecute= ends what compiles at run time.

[Install]
WantedBy=multi-user.target
"""


def unit(settings: Settings) -> str:
    """A unit that runs a server with these settings, as this user, with this installation of Portico."""
    home = settings.home
    variables = settings.variables | {"UV_CACHE_DIR": str(home / "cache" / "uv")}
    under_home = _is_under(home, Path("/home"), Path("/root"), Path("/run/user")) or _is_under(
        Path(sys.executable), Path("/home"), Path("/root"), Path("/run/user")
    )
    return _UNIT.format(
        user=pwd.getpwuid(os.getuid()).pw_name,
        environment="\n".join(f"Environment={_quoted(f'{name}={value}')}" for name, value in variables.items()),
        command=f"{_quoted(sys.executable)} -P -m portico up",
        capabilities="CAP_NET_BIND_SERVICE" if any(0 < port < 1024 for port in _ports(settings)) else "",
        home=f"ProtectHome={'read-only' if under_home else 'yes'}",
        tmp="yes" if settings.run_dir.is_relative_to(home) else "no",  # or nobody else finds the sockets there
        writable=_quoted(str(home)),
    ).rstrip("\n")


def _ports(settings: Settings) -> list[int]:
    if settings.https is None:
        return [settings.listen_port]
    https, http = settings.https.address(settings.domain), settings.https.http_address(settings.domain)
    return [settings.listen_port, https.port, *([] if http is None else [http.port])]


def _is_under(path: Path, *folders: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _quoted(text: str) -> str:
    """One word of a unit file."""
    plain = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{plain}"'
