"""What one function may take of a server: declared once, made at the edge from flags and variables, passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portico.model.errors import InvalidError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The same for each function of a server.

    queue: inputs that may wait for a container. containers: how many a function may have that says no
    max_containers of its own.
    """

    queue: int = 2000
    containers: int = 100

    def validate(self) -> Limits:
        """Itself, or InvalidError that names the setting."""
        for name, number in (("PORTICO_QUEUE_LIMIT", self.queue), ("PORTICO_MAX_CONTAINERS", self.containers)):
            if number < 1:
                raise InvalidError(f"{name} must be at least 1, not {number}.")
        return self


DEFAULT_LIMITS: Final = Limits()
