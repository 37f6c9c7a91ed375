"""Sizes as people write them."""

from __future__ import annotations

import re

from portico.model.errors import InvalidError

_UNITS = {"": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_size(text: str, name: str) -> int | None:
    """Bytes; None for "unlimited". InvalidError that names the setting `name`."""
    if text.strip().lower() == "unlimited":
        return None
    found = re.fullmatch(r"(\d+)\s*([a-z]*)", text.strip().lower())
    if found is None or found[2] not in _UNITS or not int(found[1]):
        raise InvalidError(f"{name} is not a size: {text!r}.", hint="For example 2MiB, 512KiB, 65536 or unlimited")
    return int(found[1]) * _UNITS[found[2]]
