"""When a function runs by itself."""

from __future__ import annotations

from dataclasses import dataclass

from portico.model.errors import InvalidError


@dataclass(frozen=True, slots=True)
class Cron:
    """At the times of a cron line of five fields."""

    cron_string: str
    timezone: str = "UTC"

    def __post_init__(self) -> None:
        if not isinstance(self.cron_string, str) or len(self.cron_string.split()) != 5:
            raise InvalidError(
                f"Not a cron line: {self.cron_string!r}.",
                hint='It has five fields: minute, hour, day of the month, month, day of the week: "0 9 * * 1".',
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Again after this much time."""

    years: int = 0
    months: int = 0
    weeks: int = 0
    days: int = 0
    hours: int = 0
    minutes: int = 0
    seconds: float = 0

    def __post_init__(self) -> None:
        parts = (self.years, self.months, self.weeks, self.days, self.hours, self.minutes, self.seconds)
        if min(parts) < 0 or not any(parts):
            raise InvalidError("A period must be longer than zero.")
