"""The schema's revisions, known without loading Alembic; a test holds them against the migrations."""

from __future__ import annotations

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007")  # the oldest first
HEAD = REVISIONS[-1]
