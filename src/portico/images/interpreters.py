"""Which Python an image gets: the server's own where the version fits, else one that uv finds on this machine.

pyenv's shims are a trap: uv finds them, and they fail for every version that is not pyenv's global one. They are taken
off the search path, and the versions behind them are put on it.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import uv

from portico.images.plan import OLDEST_PYTHON
from portico.images.process import clean_environment, run
from portico.model.errors import ImageBuildError
from portico.model.ports import LineSink


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpreter:
    """A Python on this machine. version: "3.12.1". own: the extension modules of the server's environment fit it."""

    path: Path
    version: str
    own: bool

    @property
    def minor(self) -> str:
        """ "3.12" """
        return ".".join(self.version.split(".")[:2])


class Interpreters:
    """Finds interpreters; asks uv at most once for what it knows."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._installed: list[Interpreter] | None = None

    async def find(self, version: str, on_line: LineSink) -> Interpreter:
        """One of this version ("3.12" or "3.12.1"), fetched by uv if need be; ImageBuildError when there is none."""
        own = own_interpreter()
        if _fits(own.version, version):
            return own
        found = _newest(await self.installed(), version)
        if found is None:
            said = await self._fetch(version, on_line)
            self._installed = None
            found = _newest(await self.installed(), version)
        if found is None:
            minors = {python.minor for python in [own, *await self.installed()]}
            here = sorted((minor for minor in minors if _numbers(minor) >= OLDEST_PYTHON), key=_numbers)
            raise ImageBuildError(
                f"Python {version} is not installed on this machine, and uv could not fetch it.",
                hint=f"Installed here: {', '.join(here)}. Install Python {version}, or ask for one of these.",
                detail="\n".join(said[-20:]),
            )
        return found

    async def installed(self) -> list[Interpreter]:
        """All that uv finds, the newest first."""
        if self._installed is None:
            lines: list[str] = []
            argv = [uv.find_uv_bin(), "python", "list", "--only-installed", "--output-format", "json", "--no-config"]
            await run(argv, env=_search_environment(), cwd=self._scratch, on_line=lines.append)
            self._installed = parse_installed(lines)
        return self._installed

    async def _fetch(self, version: str, on_line: LineSink) -> list[str]:
        said: list[str] = []

        def tell(line: str) -> None:
            said.append(line)
            on_line(line)

        tell(f"Python {version} is not installed here; asking uv for it")
        argv = [uv.find_uv_bin(), "python", "install", "--no-progress", "--no-bin", version]
        await run(argv, env=clean_environment({"NO_COLOR": "1"}), cwd=self._scratch, on_line=tell)
        return said


def interpreter_at(path: Path, version: str) -> Interpreter:
    """A Python whose version is known."""
    return Interpreter(path=path, version=version, own=_shares_abi(version))


def own_interpreter() -> Interpreter:
    """The server's: the one below its virtual environment, where that can still be run."""
    base = Path(getattr(sys, "_base_executable", None) or sys.executable)
    path = base if os.access(base, os.X_OK) else Path(sys.executable)
    return interpreter_at(path, platform.python_version())


def parse_installed(lines: list[str]) -> list[Interpreter]:
    """uv's list, as `uv python list --output-format json` prints it; shims and other implementations left out."""
    document = next((line for line in lines if line.startswith("[")), "[]")
    return sorted(
        (
            interpreter_at(Path(entry["path"]), entry["version"])
            for entry in json.loads(document)
            if entry["implementation"] == "cpython"
            and entry["variant"] == "default"
            and "shims" not in Path(entry["path"]).parts
            and all(part.isdigit() for part in entry["version"].split("."))
        ),
        key=lambda python: _numbers(python.version),
        reverse=True,
    )


def _newest(installed: list[Interpreter], version: str) -> Interpreter | None:
    return next((python for python in installed if _fits(python.version, version)), None)


def _fits(has: str, wanted: str) -> bool:
    return has == wanted or has.startswith(f"{wanted}.")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _shares_abi(version: str) -> bool:
    standard = sys.implementation.name == "cpython" and not sysconfig.get_config_var("Py_GIL_DISABLED")
    return standard and version.split(".")[:2] == [str(part) for part in sys.version_info[:2]]


def _search_environment() -> dict[str, str]:
    folders = [f for f in os.environ.get("PATH", os.defpath).split(os.pathsep) if Path(f).name != "shims"]
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    folders += [str(folder) for folder in sorted(root.glob("versions/*/bin"))]
    return clean_environment({"PATH": os.pathsep.join(folders), "NO_COLOR": "1"})
