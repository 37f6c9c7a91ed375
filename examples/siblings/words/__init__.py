"""A package next to app.py."""
