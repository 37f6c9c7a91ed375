"""The log of an app, where it cannot be written."""

from __future__ import annotations

import asyncio
from pathlib import Path

from portico.server.logs import AppLog
from portico.wire.control import LogLine

LINE = LogLine(at=1.0, function="f", container_id="ct-1", source="stdout", line="hello")


async def test_who_follows_gets_the_lines_that_cannot_be_kept(tmp_path: Path) -> None:
    """A full disk, or a folder that has gone, ends neither the writing nor the reading."""
    log = AppLog(tmp_path / "gone" / "app.jsonl")
    lines = log.follow(None)
    first = asyncio.ensure_future(anext(lines))
    await asyncio.sleep(0)
    log.write([LINE])
    assert await first == LINE
    (tmp_path / "gone").mkdir()
    log.write([LINE])
    assert log.tail(10, None) == [LINE]
    await lines.aclose()
    log.close()
