"""Measurements, each side by side with its peer in one run: `python -m bench` for all, `python -m bench.cold` for one.

Absolute times depend on the machine and the moment; the ratios are what is claimed. Each command prints a short table
on stderr and one JSON object on stdout.
"""
