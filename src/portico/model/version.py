"""Portico's own version. Here, so that every room can say it without asking the package's metadata (30 ms)."""

VERSION = "0.1.0"
