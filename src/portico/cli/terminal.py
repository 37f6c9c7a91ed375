"""What is said on stdout and stderr, and how it looks there: results and logs on stdout, all else on stderr."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TextIO

import click

from portico.model.errors import Error
from portico.wire.control import EndpointInfo, FunctionInfo, LogLine

_SOURCE_COLOURS = {"stdout": "cyan", "stderr": "yellow", "system": "magenta"}


class Terminal:
    """Both streams. Lines of several threads do not mix.

    colour: stdout shows colours. live: stderr can show a display that changes.
    """

    def __init__(self, out: TextIO, err: TextIO, environ: Mapping[str, str]) -> None:
        plain = bool(environ.get("NO_COLOR") or environ.get("CI")) or environ.get("TERM") == "dumb"
        self.colour = out.isatty() and not plain
        self.live = err.isatty() and not plain
        self._out = out
        self._err = err
        self._lock = threading.RLock()
        self._warned: set[str] = set()
        self._above: Callable[[str], None] | None = None

    @classmethod
    def standard(cls) -> Terminal:
        """This process's own."""
        return cls(sys.stdout, sys.stderr, os.environ)

    def result(self, text: str) -> None:
        """One line (or several) on stdout."""
        self._write(self._out, text)

    def note(self, text: str) -> None:
        """One line (or several) on stderr."""
        self._write(self._err, text)

    def warn(self, text: str) -> None:
        """A warning on stderr; the same text is said once."""
        with self._lock:
            if text not in self._warned:
                self._warned.add(text)
                self.note(f"{self._styled('Warning:', 'yellow')} {text}")

    def error(self, error: Error) -> None:
        """An error on stderr: its detail, its message, its hint."""
        lines = [error.detail.rstrip("\n")] if error.detail else []
        lines.append(f"{self._styled('Error:', 'red')} {error.message}")
        if error.hint:
            lines.append(f"{self._styled('Hint:', 'blue')} {error.hint}")
        self.note("\n".join(lines))

    def log(self, line: LogLine, *, timestamps: bool = False, beside: bool = False) -> None:
        """A line of a container on stdout; `beside` the result there, so on stderr."""
        prefix = f"[{line.function}]"
        if self.colour:
            prefix = click.style(prefix, fg=_SOURCE_COLOURS.get(line.source))
        if timestamps:
            prefix = f"{local_time(line.at)} {prefix}"
        self._write(self._err if beside else self._out, f"{prefix} {line.line}")

    def put_above(self, write: Callable[[str], None] | None) -> None:
        """From now on, lines that go to a terminal are handed to `write`, which puts them above a live display."""
        with self._lock:
            self._above = write

    def _write(self, stream: TextIO, text: str) -> None:
        with self._lock:
            if self._above is not None and stream.isatty():
                self._above(text)
            else:
                stream.write(text + "\n")
                stream.flush()

    def _styled(self, text: str, colour: str) -> str:
        return click.style(text, fg=colour, bold=True) if self.live else text


def local_time(at: float) -> str:
    """Seconds since the epoch as a local time with milliseconds and offset, ISO 8601."""
    return datetime.fromtimestamp(at).astimezone().isoformat(timespec="milliseconds")


def minute(at: float) -> str:
    """Seconds since the epoch as a local time, to the minute."""
    return datetime.fromtimestamp(at).strftime("%Y-%m-%d %H:%M")


def marked(endpoint: EndpointInfo | FunctionInfo) -> str:
    """The URL of an endpoint, with a key behind it where a request needs a proxy token."""
    return f"{endpoint.url} 🔑" if endpoint.protected else f"{endpoint.url}"


def marked_domains(endpoint: EndpointInfo | FunctionInfo) -> list[str]:
    """Its URLs at custom domains, each marked as the one above."""
    return [f"{url} 🔑" if endpoint.protected else url for url in endpoint.custom_urls]


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns, aligned, two spaces apart."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows])
    return "\n".join(line.rstrip() for line in lines)
