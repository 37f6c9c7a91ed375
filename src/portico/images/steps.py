"""One step of an image -> the command lines that do it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import uv

from portico.images.plan import BUILDING_KINDS
from portico.images.process import clean_environment
from portico.model.spec import ImageStep

_FALSE = frozenset({"", "0", "false", "no", "none"})
_VALUED = {"index_url": "--index-url", "extra_index_url": "--extra-index-url", "find_links": "--find-links"}


def venv_command(python: Path, folder: Path, *, with_pip: bool) -> list[str]:
    """Makes the environment. Relocatable, so that a home that was moved keeps its images."""
    seed = ["--seed"] if with_pip else []
    return [
        uv.find_uv_bin(),
        "venv",
        "--quiet",
        "--no-project",
        "--relocatable",
        *seed,
        "--python",
        str(python),
        str(folder),
    ]


def commands(step: ImageStep, *, python: Path, scratch: Path) -> list[list[str]]:
    """The command lines of a building step, in order. May leave files in `scratch`."""
    if step.kind not in BUILDING_KINDS:
        return []
    if step.kind == "run_commands":
        return [["sh", "-c", line] for line in step.arguments]
    install = [
        *(uv.find_uv_bin(), "pip", "install", "--no-progress", "--compile-bytecode"),
        *("--python", str(python)),
        *pip_options(step.options),
    ]
    if step.kind == "requirements":
        listing = scratch / "requirements.txt"
        listing.write_text(step.text or "", encoding="utf-8")
        return [[*install, "--requirements", str(listing)]]
    return [[*install, "--", *step.arguments]] if step.arguments else []


def pip_options(options: dict[str, str]) -> list[str]:
    """pip's options of a step (see `plan.PIP_OPTIONS`), as uv takes them."""
    argv: list[str] = []
    for name, value in sorted(options.items()):
        if name in _VALUED:
            argv += [_VALUED[name], value] if value else []
        elif name == "pre":
            argv += [] if value.lower() in _FALSE else ["--prerelease", "allow"]
        elif name == "extra_options":
            argv += shlex.split(value)
    return argv


def environment(step: ImageStep, *, folder: Path, image_env: dict[str, str]) -> dict[str, str]:
    """The environment in which a step's commands run: the image's own variables, and for shell lines the venv too."""
    if step.kind != "run_commands":
        return clean_environment(image_env | {"NO_COLOR": "1"})
    path = [str(folder / "bin"), image_env.get("PATH") or os.environ.get("PATH", os.defpath)]
    path.append(
        str(Path(uv.find_uv_bin()).parent)
    )  # last: shell lines may call uv, and find nothing else of ours first
    return clean_environment(image_env | {"VIRTUAL_ENV": str(folder), "PATH": os.pathsep.join(path)})
