"""Rendezvous hashing."""

from __future__ import annotations

from collections import Counter

from portico.core.rendezvous import owner

KEYS = [f"main/app-{number % 40}/function-{number}" for number in range(4000)]


def test_a_key_has_the_same_owner_in_every_process_and_version() -> None:
    """Two processes that disagreed would send a connection to and fro."""
    assert [owner(f"main/shop/{name}", 4) for name in "abcdefgh"] == [2, 1, 0, 0, 3, 1, 0, 1]
    assert owner("anything", 1) == 0


def test_keys_are_spread_evenly() -> None:
    """Within a tenth."""
    counts = Counter(owner(key, 8) for key in KEYS)
    assert sorted(counts) == list(range(8))
    assert all(abs(count - len(KEYS) / 8) < len(KEYS) / 80 for count in counts.values())


def test_one_more_process_takes_its_part_and_moves_nothing_else() -> None:
    """About one key in nine."""
    moved = [key for key in KEYS if owner(key, 8) != owner(key, 9)]
    assert all(owner(key, 9) == 8 for key in moved)
    assert abs(len(moved) - len(KEYS) / 9) < len(KEYS) / 90
