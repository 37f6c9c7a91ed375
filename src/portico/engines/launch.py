"""What a process is started with: command line, environment, launch document. Pure, but for the stat of a file."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from portico.model.ports import BuiltImage, ContainerStart
from portico.wire.container import Group, Launch, View

_BOOT = Path(__file__).parent.parent / "runtime" / "boot.py"
_INHERITED = ("HOME", "TZ", "USER", "LOGNAME")
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def template_command(image: BuiltImage) -> list[str]:
    """The command line of an image's template process; `{fd}` stands for its end of the socket pair."""
    return [
        str(image.python),
        "-s",  # what the machine's user has installed for themselves is no part of an image
        str(_BOOT),
        "--fd={fd}",
        "--path",
        *map(str, image.site_packages),
        "--runtime",
        *map(str, image.runtime_path),
    ]


def base_environment(image: BuiltImage, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of everything in an image. `own` is the server's, of which little is handed on."""
    folder = image.python.parent
    environment = {name: own[name] for name in _INHERITED if name in own}
    environment["PATH"] = f"{folder}:{own.get('PATH', _SYSTEM_PATH)}"
    environment["LANG"] = "C.UTF-8"
    if (folder.parent / "pyvenv.cfg").is_file():
        environment["VIRTUAL_ENV"] = str(folder.parent)
    return environment | image.env


def container_environment(base: Mapping[str, str], start: ContainerStart) -> dict[str, str]:
    """The whole environment of a container: what the image says, what Modal's containers have, what the user set."""
    facts = {
        "TASK_ID": start.container_id,
        "IS_REMOTE": "1",
        "ENVIRONMENT": start.environment,
        "IMAGE_ID": f"im-{start.image.key}",
        "APP_ID": start.app_id,
        "APP_NAME": start.app_name,
        "FUNCTION_NAME": start.function.name,
    }
    named = {f"{prefix}_{name}": value for prefix in ("MODAL", "PORTICO") for name, value in facts.items()}
    return {**base, **named, **start.function.env}


def launch_document(
    start: ContainerStart,
    socket_path: str,
    view: View,
    groups: tuple[Group, ...],
    environment: dict[str, str],
    *,
    snapshot: bool = False,
) -> Launch:
    """What a container is told at its start."""
    limited = any("memory" in setting for group in groups for setting in group.settings)
    return Launch(
        container_id=start.container_id,
        snapshot=snapshot,
        app_id=start.app_id,
        app_name=start.app_name,
        function=start.function,
        parameters=start.parameters,
        entry=start.entry,
        bundle_dir=str(start.bundle_dir),
        workdir=os.path.join(start.bundle_dir, start.image.workdir or ""),
        socket_path=socket_path,
        view=view,
        groups=groups,
        data_limit=None if limited else start.function.resources.memory_limit,
        env=environment,
        urls=start.urls,
    )
