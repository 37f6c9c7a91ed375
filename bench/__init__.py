"""Measurements, each side by side with its peers in one run: `python -m bench` for all, `python -m bench cold` for one.

Absolute times depend on the machine and the moment; the ratios are what is claimed. docs/performance.md says what each
of them does, and has the figures of the last run.
"""
