"""When a failed call is tried again."""

from __future__ import annotations

from dataclasses import dataclass

from portico.model.errors import InvalidError
from portico.model.spec import RetryPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """At most `max_retries` more attempts; the n-th waits initial_delay * backoff_coefficient**(n-1) seconds, at most
    `max_delay`."""

    max_retries: int
    backoff_coefficient: float = 2.0
    initial_delay: float = 1.0
    max_delay: float = 60.0

    def __post_init__(self) -> None:
        if self.max_retries < 0:
            raise InvalidError(f"Invalid retries number: {self.max_retries}. It cannot be negative.")
        if not 1 <= self.max_delay <= 60:
            raise InvalidError(f"Invalid max_delay: {self.max_delay}. It must be between 1 and 60 seconds.")
        if not 0 <= self.initial_delay <= 60:
            raise InvalidError(f"Invalid initial_delay: {self.initial_delay}. It must be between 0 and 60 seconds.")
        if not 1 <= self.backoff_coefficient <= 10:
            raise InvalidError(
                f"Invalid backoff_coefficient: {self.backoff_coefficient}. It must be between 1.0 (every delay the "
                "same) and 10.0."
            )

    @property
    def policy(self) -> RetryPolicy:
        """The same, as a specification has it."""
        return RetryPolicy(
            max_retries=self.max_retries,
            backoff_coefficient=float(self.backoff_coefficient),
            initial_delay=float(self.initial_delay),
            max_delay=float(self.max_delay),
        )
