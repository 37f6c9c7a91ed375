"""What must not lie in the database in clear: sealed with AES-256-GCM. The only place that knows `cryptography`.

Law: a sealed text is bound to its identity (table, column, key of its row). Moved to another row it does not open.
"""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from portico.model.errors import StateError
from portico.store.files import make_private, publish, temporary_file

KEY_FILE: Final = "secret.key"  # in the home
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_MAX_FILE: Final = 1024  # bytes


class Vault:
    """Seals and opens with one key."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return "<Vault>"

    def seal(self, text: str, *identity: str) -> str:
        """The text, sealed for this identity (parts without NUL); in base64, different each time."""
        nonce = os.urandom(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, text.encode(), _bytes(identity))).decode()

    def open(self, sealed: str, *identity: str) -> str:
        """The text again. StateError when it was sealed with another key, for another identity, or is damaged."""
        try:
            data = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(data[:_NONCE_BYTES], data[_NONCE_BYTES:], _bytes(identity)).decode()
        except (InvalidTag, ValueError):
            raise StateError(
                f"A sealed entry of the database ({' '.join(identity)}) does not open with this server's secret key.",
                hint="Was it changed, or copied from somewhere else?",
            ) from None


def open_vault(home: Path, given: str | None, *, make: bool) -> Vault:
    """The vault with the key that was given (base64) or, without one, with that of the home.

    make: whether a new key is made where there is none. StateError where a key is missing, is none, or where others
    may read its file.
    """
    if given is not None:
        return Vault(_decoded(given, "PORTICO_SECRET_KEY"))
    place = home / KEY_FILE
    try:
        return Vault(_decoded(_read(place), str(place)))
    except FileNotFoundError:
        if make:
            return Vault(_make(place))
        raise StateError(
            f"The secret key {place} is gone; without it the database cannot be read.",
            hint="Put it back, from the same backup as the database; or set PORTICO_SECRET_KEY to what was in it.",
        ) from None
    except OSError as error:
        raise StateError(f"The secret key {place} cannot be read: {error.strerror}.") from None


def _read(place: Path) -> str:
    with open(place, "rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o077:
            raise StateError(f"Others may read the secret key {place}.", hint=f"chmod 600 {place}")
        return file.read(_MAX_FILE).decode("latin-1")


def _make(place: Path) -> bytes:
    key = AESGCM.generate_key(_KEY_BYTES * 8)
    try:
        make_private(place.parent)
        with temporary_file(place.parent) as (file, name):
            file.write(base64.b64encode(key) + b"\n")
            publish(file, name, place, 0o600)
    except OSError as error:
        raise StateError(f"The secret key {place} cannot be written: {error.strerror}.") from None
    return key


def _decoded(text: str, source: str) -> bytes:
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise StateError(
            f"{source} is not a key: 32 bytes in base64.", hint="This makes a new one: openssl rand -base64 32"
        )
    return key


def _bytes(identity: tuple[str, ...]) -> bytes:
    return "\0".join(identity).encode()
