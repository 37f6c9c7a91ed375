"""Profiles: which servers this user deploys to, with which tokens. One TOML file that only its owner may read.

    [office]
    server_url = "http://192.0.2.1:7777"
    token_id = "ak-…"
    token_secret = "as-…"
    environment = "staging"
    active = true

All else that stands in the file (comments, other keys) is left as it is.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from portico.model.errors import InvalidError, NotFoundError, StateError
from portico.model.naming import check_object_name

KEYS: Final = ("server_url", "token_id", "token_secret", "environment")
_SECTION = re.compile(r"\s*\[\s*[\"']?([^\]\"']+?)[\"']?\s*\]\s*(#.*)?")
_KEY = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What a profile says; None where it says nothing."""

    name: str
    server_url: str | None = None
    token_id: str | None = None
    token_secret: str | None = field(default=None, repr=False)
    environment: str | None = None
    active: bool = False


def config_path(environ: Mapping[str, str]) -> Path:
    """Where the file is, or would be."""
    given = environ.get("PORTICO_CONFIG_PATH")
    return Path(given or "~/.portico.toml").expanduser()


class Profiles:
    """The file, read anew for each question."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def all(self) -> list[Profile]:
        """In the file's order. StateError for a file that cannot be read, InvalidError for one that makes no sense."""
        text = self._read()
        if not text:
            return []
        import tomllib  # only where there is a file

        try:
            sections = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidError(f"{self.path} is not valid TOML: {error}.", hint="Mend it, or remove it.") from None
        return [self._profile(name, values) for name, values in sections.items()]

    def find(self, name: str) -> Profile:
        """The one of this name; NotFoundError."""
        for profile in self.all():
            if profile.name == name:
                return profile
        raise NotFoundError(f"There is no profile {name!r} in {self.path}.", hint="See `portico profile list`.")

    def current(self, environ: Mapping[str, str]) -> Profile | None:
        """The one that PORTICO_PROFILE names, or the active one."""
        named = environ.get("PORTICO_PROFILE")
        if named:
            return self.find(named)
        return next((profile for profile in self.all() if profile.active), None)

    def change(self, name: str, values: Mapping[str, str | bool | None]) -> None:
        """Set these keys of a profile, which is made if it is not there; None takes a key out."""
        check_object_name(name, "profile")
        self._write(_edit(self._read(), name, values))

    def activate(self, name: str) -> None:
        """Have this profile be the active one, and no other."""
        self.find(name)
        self._activate(name)

    def deactivate(self) -> None:
        """Have no profile be active."""
        self._activate(None)

    # -- inside ---------------------------------------------------------------------------------------------------
    def _activate(self, name: str | None) -> None:
        text = self._read()
        for profile in self.all():
            if profile.active != (profile.name == name):
                text = _edit(text, profile.name, {"active": True if profile.name == name else None})
        self._write(text)

    def _profile(self, name: str, values: object) -> Profile:
        if not isinstance(values, dict) or not all(isinstance(values.get(key, ""), str) for key in KEYS):
            raise InvalidError(f"{self.path}: {name!r} is no profile.", hint=f"Its keys are {', '.join(KEYS)}: text.")
        known = {key: values.get(key) or None for key in KEYS}
        return Profile(name=name, active=values.get("active") is True, **known)

    def _read(self) -> str:
        try:
            return self.path.read_text("utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise StateError(f"{self.path} cannot be read: {error}.") from None

    def _write(self, text: str) -> None:
        try:
            target = self.path.resolve()  # what a link leads to is what is replaced
            target.parent.mkdir(parents=True, exist_ok=True)
            descriptor, making = tempfile.mkstemp(dir=target.parent, prefix=f"{target.name}.")  # made 0600
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(making, target)
        except OSError as error:
            raise StateError(f"{self.path} cannot be written: {error.strerror}.") from None


def _edit(text: str, name: str, values: Mapping[str, str | bool | None]) -> str:
    """The file with these keys set in the section `name`, and nothing else touched."""
    lines = text.splitlines()
    begin = next((i for i, line in enumerate(lines) if _names(line) == name), None)
    if begin is None:
        header = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name)
        lines += ([""] if lines and lines[-1].strip() else []) + [f"[{header}]"]
        begin = len(lines) - 1
    end = next((i for i in range(begin + 1, len(lines)) if _SECTION.fullmatch(lines[i])), len(lines))
    body = [line for line in lines[begin + 1 : end] if _key(line) not in values]
    while body and not body[-1].strip():
        body.pop()
    body += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    rest = lines[end:]
    return "\n".join([*lines[: begin + 1], *body, *([""] if rest else []), *rest]) + "\n"


def _names(line: str) -> str | None:
    found = _SECTION.fullmatch(line)
    return found[1] if found else None


def _key(line: str) -> str | None:
    found = _KEY.match(line)
    return found[1] if found else None
