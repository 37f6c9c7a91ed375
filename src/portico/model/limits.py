"""What one function may take of a server: declared once, made at the edge from flags and variables, passed on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portico.model.errors import InvalidError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The same for each function of a server.

    queue: inputs that may wait for a container. containers: how many a function may have that says no
    max_containers of its own. drain: seconds that inputs of a replaced version may go on; None: as long as its timeout.
    """

    queue: int = 2000
    containers: int = 100
    drain: int | None = None

    def validate(self) -> Limits:
        """Itself, or InvalidError that names the setting."""
        for name, number in (("PORTICO_QUEUE_LIMIT", self.queue), ("PORTICO_MAX_CONTAINERS", self.containers)):
            if number < 1:
                raise InvalidError(f"{name} must be at least 1, not {number}.")
        if self.drain is not None and self.drain < 1:
            raise InvalidError(f"PORTICO_DRAIN_TIMEOUT must be at least 1 second, not {self.drain}.")
        return self


DEFAULT_LIMITS: Final = Limits()
