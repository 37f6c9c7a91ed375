"""Who may have a certificate."""

from __future__ import annotations

from typing import Any

import pytest

from portico.edge.ask import make_ask


async def ask(path: str, query: str) -> tuple[int, list[str]]:
    """The status, and the names that were looked at."""
    looked, sent = [], []

    async def allowed(name: str) -> bool:
        looked.append(name)
        return name == "api.example.com"

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await make_ask("/secret", allowed)({"path": path, "query_string": query.encode()}, None, send)
    return sent[0]["status"], looked


async def test_an_allowed_name_is_allowed_in_any_case() -> None:
    """Names have no case."""
    assert await ask("/secret", "domain=API.example.com") == (200, ["api.example.com"])


async def test_other_names_are_refused() -> None:
    """After a look."""
    assert await ask("/secret", "domain=evil.example.com") == (404, ["evil.example.com"])


@pytest.mark.parametrize("path", ["/", "/secre", "/secret2", "/SECRET", "/s\u00e9cret"])
async def test_who_does_not_know_the_path_learns_nothing(path: str) -> None:
    """Nobody looks, so that it takes as long for every name."""
    assert await ask(path, "domain=api.example.com") == (404, [])


@pytest.mark.parametrize("query", ["", "domain=", "name=api.example.com", f"domain={'a' * 254}"])
async def test_what_is_no_name_is_refused(query: str) -> None:
    """Without a look."""
    assert await ask("/secret", query) == (404, [])
