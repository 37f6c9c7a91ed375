"""What an image's steps ask for, as pure decisions: may it be built here, under which key, with which environment."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import sys
from dataclasses import dataclass

from portico.model.errors import InvalidError, UnsupportedError
from portico.model.spec import ImageSpec, ImageStep

FORMAT = 1  # of the folders and of the manifest; a new one builds every image anew
OLDEST_PYTHON = (3, 11)  # the runtime in the containers is Portico's own code
BUILDING_KINDS = frozenset({"pip_install", "requirements", "run_commands"})
SETTING_KINDS = frozenset({"env", "workdir"})
PIP_OPTIONS = frozenset({"index_url", "extra_index_url", "find_links", "pre", "extra_options"})

_VERSION = re.compile(r"^3\.(\d{1,3})(\.\d{1,3})?$")
_HINTS = {
    "apt_install": "Install the packages on this machine (`apt-get install …`) and leave the step out, or use packages "
    "that come as wheels with `pip_install`.",
    "from_registry": "Start from `Image.debian_slim()` and add what is needed with `pip_install`.",
    "from_aws_ecr": "Start from `Image.debian_slim()` and add what is needed with `pip_install`.",
    "from_gcp_artifact_registry": "Start from `Image.debian_slim()` and add what is needed with `pip_install`.",
    "from_dockerfile": "Write the Dockerfile's Python packages as `pip_install` on `Image.debian_slim()`.",
    "dockerfile_commands": "Write what they install as `pip_install` or `run_commands`.",
    "micromamba": "Start from `Image.debian_slim()` and use `pip_install`.",
    "micromamba_install": "Use `pip_install` where the packages come as wheels.",
}
_OTHERWISE = "Use `pip_install`, `run_commands`, `env` and `workdir` on `Image.debian_slim()`."


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to build.

    key: names the whole image. folder_key: names its environment on disk; images that differ only in `env` and
    `workdir` after the last building step share it. python: the version asked for, "3.12" or "3.12.1". building: the
    steps up to the last one that builds. env, workdir: what holds in a container.
    """

    key: str
    folder_key: str
    python: str
    building: tuple[ImageStep, ...]
    env: dict[str, str]
    workdir: str | None


def check(image: ImageSpec) -> None:
    """UnsupportedError or InvalidError when this image can never be built by this engine."""
    if image.python_version is not None:
        _check_python(image.python_version)
    for step in image.steps:
        if step.kind not in BUILDING_KINDS | SETTING_KINDS:
            raise UnsupportedError(
                f"{step_name(step)} needs a root filesystem, which the process engine does not give to an image.",
                hint=_HINTS.get(step.kind, _OTHERWISE),
            )
        if step.kind in ("pip_install", "requirements") and (unknown := sorted(step.options.keys() - PIP_OPTIONS)):
            raise InvalidError(f"pip_install does not know the option {unknown[0]!r}.")
        if step.kind == "workdir" and len(step.arguments) != 1:
            raise InvalidError("workdir takes one path.")


def plan(image: ImageSpec) -> Plan:
    """The plan of an image that `check` lets pass."""
    check(image)
    python = image.python_version or own_version()
    last = max((i for i, step in enumerate(image.steps) if step.kind in BUILDING_KINDS), default=-1)
    env, workdir = settings(image.steps)
    return Plan(
        key=_key(python, image.steps),
        folder_key=_key(python, image.steps[: last + 1]),
        python=python,
        building=image.steps[: last + 1],
        env=env,
        workdir=workdir,
    )


def settings(steps: tuple[ImageStep, ...]) -> tuple[dict[str, str], str | None]:
    """The environment and the working folder after these steps."""
    env: dict[str, str] = {}
    workdir: str | None = None
    for step in steps:
        if step.kind == "env":
            env.update(step.options)
        elif step.kind == "workdir":
            workdir = step.arguments[0]
    return env, workdir


def step_name(step: ImageStep) -> str:
    """A step as its user wrote it, in short: "pip_install(fastapi, httpx)"."""
    arguments = ", ".join(step.arguments)
    return f"{step.kind}({arguments if len(arguments) <= 120 else arguments[:119] + '…'})"


def own_version() -> str:
    """The server's own minor version, "3.11"."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _check_python(version: str) -> None:
    match = _VERSION.match(version)
    if match is None:
        raise InvalidError(f"Not a Python version: {version!r}.", hint='For example python_version="3.12".')
    if (3, int(match[1])) < OLDEST_PYTHON:
        raise UnsupportedError(
            f"Python {version} is too old for a container.",
            hint=f"Containers need Python {OLDEST_PYTHON[0]}.{OLDEST_PYTHON[1]} or newer.",
        )


def _key(python: str, steps: tuple[ImageStep, ...]) -> str:
    normal = [[step.kind, step.arguments, sorted(step.options.items()), step.text] for step in steps]
    machine = [sys.platform, platform.machine(), sys.implementation.name]
    return hashlib.sha256(json.dumps([FORMAT, python, machine, normal]).encode()).hexdigest()
